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
        Option<bool> compare = new("--compare")
        {
            Description = "The VDI is there, from an import that did not end: read it too, and write only what differs."
        };
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "import",
            "Make a VDI with the content of any target. Zeros are left out. It cannot be used before all is copied.")
        {
            target, name, compare, store,
        };
        command.SetAction((arguments, _) => RunAsync(
            catalog, arguments.GetRequiredValue(target), arguments.GetRequiredValue(name), arguments.GetValue(store),
            arguments.GetValue(compare)));
        return command;
    }

    /// <summary>Creates a VDI with the content of a target.</summary>
    public static Task<int> RunAsync(
        CatalogMaker catalog, string source, string name, string? store, bool compares = false)
    {
        VdiSession.TellWaits();
        return ImageConvertCommand.RunAsync(
            catalog.MakeForTools(), source, VdiSession.TargetOf(name, store), compares, clusterText: null,
            remedy: $"go on with 'ublkback vdi import {source} {name} --compare', or delete the VDI with 'ublkback vdi "
                + $"delete {name}'");
    }
}
