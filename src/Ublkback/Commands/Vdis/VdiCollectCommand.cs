using System.CommandLine;
using Ublkback.Control;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi gc</c></summary>
internal static class VdiCollectCommand
{
    public static Command Make()
    {
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "gc",
            "Give back what no VDI and no snapshot needs any more. VDIs in use do that by themselves when much was "
            + "written.") { store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            long freed = await vdis.CollectAsync().ConfigureAwait(false);
            Console.WriteLine($"{Reports.Size((ulong)freed)} given back");
            return 0;
        }));
        return command;
    }
}
