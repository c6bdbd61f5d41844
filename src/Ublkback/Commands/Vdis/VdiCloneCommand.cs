using System.CommandLine;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi clone</c></summary>
internal static class VdiCloneCommand
{
    public static Command Make()
    {
        Argument<string> source = new("source") { Description = "The snapshot: NAME@SNAPSHOT." };
        Argument<string> name = new("name") { Description = "The name of the new VDI." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("clone", "Make a VDI with the content of a snapshot. Nothing is copied.") { source, name, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            vdis.Clone(arguments.GetRequiredValue(source), arguments.GetRequiredValue(name));
            return Task.FromResult(0);
        }));
        return command;
    }
}
