using System.CommandLine;
using Ublkback.Control;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi compact</c></summary>
internal static class VdiCompactCommand
{
    public static Command Make()
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "compact",
            "Put together in the file what is together on the disk, for faster reading. Needs space for what "
            + "snapshots still have elsewhere.") { name, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            long written = await vdis.CompactAsync(arguments.GetRequiredValue(name)).ConfigureAwait(false);
            Console.WriteLine($"{Reports.Size((ulong)written)} written again");
            return 0;
        }));
        return command;
    }
}
