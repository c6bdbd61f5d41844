using System.CommandLine;
using Ublkback.Commands.Images;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi import</c></summary>
internal static class VdiImportCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new("target") { Description = "The target that is read." };
        Argument<string> name = new("name") { Description = "The name of the new VDI." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("import", "Make a VDI with the content of any target. Zeros are left out.") { target, name, store };
        command.SetAction((arguments, _) => RunAsync(catalog, arguments.GetRequiredValue(target),
            arguments.GetRequiredValue(name), arguments.GetValue(store)));
        return command;
    }

    /// <summary>Creates a VDI with the content of a target.</summary>
    public static Task<int> RunAsync(CatalogMaker catalog, string source, string name, string? store)
    {
        VdiSession.TellWaits();
        return ImageConvertCommand.RunAsync(
            catalog.MakeForTools(), source, VdiSession.TargetOf(name, store), compares: false, clusterText: null);
    }
}
