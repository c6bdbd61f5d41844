using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Block;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi fsck</c></summary>
internal static class VdiCheckCommand
{
    public static Command Make()
    {
        Argument<string?> name =
            new("name") { Description = "The VDI, in use or not. Default: all.", Arity = ArgumentArity.ZeroOrOne };
        Option<bool> quick =
            new("--quick") { Description = "Leave the data out, and read only what tells where it is." };
        Option<bool> repair = new("--repair")
        {
            Description = "Repair what is damaged and that no guest uses. What "
            + "cannot be known any more is given up: it reads as I/O errors until it is written."
        };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new("fsck", """
            Read all that VDIs and their snapshots need, and compare checksums. Without --repair nothing is changed.

            Status 0: all is whole; 1: something is damaged.
            """)
        {
            name, quick, repair, json, store,
        };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            VdiCheck Check() =>
                vdis.Check(arguments.GetValue(name), !arguments.GetValue(quick), Console.Error.WriteLine);
            VdiCheck check = Check();
            foreach (string stray in vdis.Strays)
                Console.Error.WriteLine($"{stray} does not belong in the store; it does no harm");
            if (check.Damages > 0 && arguments.GetValue(repair))
            {
                vdis.RepairStore(Console.Error.WriteLine);
                foreach (string damaged in check.Damaged) await TryRepairAsync(vdis, damaged).ConfigureAwait(false);
                check = Check();
            }

            foreach (VdiInfo info in vdis.DescribeAll((_, _) => { }).Where(info =>
                info.IsUnfinished && (arguments.GetValue(name) ?? info.Name) == info.Name))
                Console.Error.WriteLine(VdiAdmin.ExplainUnfinished(info));
            if (arguments.GetValue(json))
                Console.WriteLine(JsonSerializer.Serialize(check, VdiReportJson.Default.VdiCheck));
            else
                Console.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{check.DataBlocks} blocks of data, {check.Nodes} nodes: "
                    + $"{(check.Damages == 0 ? "all is whole" : $"{check.Damages} damages")}"));
            return check.Damages == 0 ? 0 : 1;
        }));
        return command;
    }

    private static async Task TryRepairAsync(VdiAdmin vdis, string name)
    {
        try
        {
            await vdis.RepairAsync(name, Console.Error.WriteLine).ConfigureAwait(false);
        }
        catch (TargetException failure)
        {
            Console.Error.WriteLine(failure.Message);
        }
    }
}
