using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi diff</c></summary>
internal static class VdiDiffCommand
{
    public static Command Make()
    {
        Argument<string> one = new("one") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Argument<string> other = new("other") { Description = "The same." };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "diff",
            "Show where two disks differ, without reading them: what both have from the same snapshot is the same.")
        {
            one, other, json, store,
        };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            IReadOnlyList<VdiRange> ranges = await vdis.DiffAsync(
                arguments.GetRequiredValue(one), arguments.GetRequiredValue(other)).ConfigureAwait(false);
            if (arguments.GetValue(json))
            {
                Console.WriteLine(JsonSerializer.Serialize(ranges, VdiReportJson.Default.IReadOnlyListVdiRange));
                return 0;
            }

            foreach (VdiRange range in ranges)
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{range.Offset,20} {range.Length,16}"));
            Console.WriteLine($"{Reports.Size((ulong)ranges.Sum(range => range.Length))} differ");
            return 0;
        }));
        return command;
    }
}
