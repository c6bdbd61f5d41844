using System.CommandLine;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi rollback</c></summary>
internal static class VdiRollbackCommand
{
    public static Command Make()
    {
        Argument<string> snapshot = new("snapshot") { Description = "The snapshot: NAME@SNAPSHOT." };
        Option<bool> live = new("--live")
        {
            Description = "Even while a guest uses the VDI, which must not have it "
            + "mounted: it would mix what it remembers with what is there."
        };
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "rollback",
            "Give a VDI the content of one of its snapshots. What it holds now is kept in another.") { snapshot, live,
                store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string text = arguments.GetRequiredValue(snapshot);
            string kept = await vdis.RollBackAsync(text, arguments.GetValue(live)).ConfigureAwait(false);
            if (arguments.GetValue(live)) await VdiSession.TellGuestAsync().ConfigureAwait(false);
            Console.WriteLine(
                $"rolled back; what was there is {text[..text.IndexOf('@', StringComparison.Ordinal)]}@{kept}");
            return 0;
        }));
        return command;
    }
}
