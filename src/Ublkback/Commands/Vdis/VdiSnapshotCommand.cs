using System.CommandLine;
using System.Globalization;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi snapshot</c></summary>
internal static class VdiSnapshotCommand
{
    public static Command Make()
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Argument<string?> snapshot = new("snapshot")
        {
            Description =
            "What the snapshot is to be called. Default: the time.",
            Arity = ArgumentArity.ZeroOrOne
        };
        Option<string?> store = VdiSession.Store();
        Command command = new("snapshot", "Keep what a VDI holds at this instant.") { name, snapshot, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string called = arguments.GetValue(snapshot)
                ?? DateTime.UtcNow.ToString("yyyy-MM-dd_HH.mm.ss.fff", CultureInfo.InvariantCulture);
            await vdis.SnapshotAsync(arguments.GetRequiredValue(name), called).ConfigureAwait(false);
            Console.WriteLine($"{arguments.GetRequiredValue(name)}@{called}");
            return 0;
        }));
        return command;
    }
}
