using System.CommandLine;
using Ublkback.Commands.Images;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi export</c></summary>
internal static class VdiExportCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> name = new("name") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Argument<string> target = new("target") { Description = "The target that is made: /path or qcow2:/path." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("export", "Copy a VDI or a snapshot to any target. Zeros are left out.") { name, target, store };
        command.SetAction((arguments, _) =>
        {
            VdiSession.TellWaits();
            return ImageConvertCommand.RunAsync(
                catalog.MakeForTools(),
                VdiSession.TargetOf(arguments.GetRequiredValue(name), arguments.GetValue(store)),
                arguments.GetRequiredValue(target), compares: false, clusterText: null);
        });
        return command;
    }
}
