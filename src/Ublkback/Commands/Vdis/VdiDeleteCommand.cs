using System.CommandLine;
using Ublkback.Block;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi delete</c></summary>
internal static class VdiDeleteCommand
{
    public static Command Make()
    {
        Argument<string> name = new("name") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Option<bool> snapshots = new("--snapshots") { Description = "The snapshots of NAME are deleted with it." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("delete", "Delete a VDI or a snapshot. Clones keep what they have.") { name, snapshots, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            string[] parts = arguments.GetRequiredValue(name).Split('@', 2);
            if (parts.Length == 2)
            {
                await vdis.DeleteSnapshotAsync(parts[0], parts[1]).ConfigureAwait(false);
                return 0;
            }

            await vdis.DeleteAsync(parts[0], arguments.GetValue(snapshots)).ConfigureAwait(false);
            try
            {
                await vdis.CollectDeletedAsync().ConfigureAwait(false);
            }
            catch (TargetException failure)
            {
                // It is deleted all the same.
                Console.Error.WriteLine(
                    $"ublkback: {parts[0]} is deleted, and its space is not given back yet: {failure.Message}");
            }

            return 0;
        }));
        return command;
    }
}
