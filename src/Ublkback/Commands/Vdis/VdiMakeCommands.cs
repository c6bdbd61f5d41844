using System.CommandLine;
using Ublkback.Block;
using Ublkback.Commands.Images;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi create</c>, <c>clone</c>, <c>import</c> and <c>export</c></summary>
internal static class VdiMakeCommands
{
    public static Command MakeCreate(CatalogMaker catalog)
    {
        Argument<string> name = new("name") { Description = "Its name: letters, digits, '.', '-' and '_'." };
        Argument<string?> sizeArgument =
            new("size") { Description = "Its size, such as 20G.", Arity = ArgumentArity.ZeroOrOne };
        Option<string?> size = new("--size") { Description = "The same." };
        Option<string?> from = new("--from") { Description = "A target of which it gets the content and the size." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("create", "Make a VDI, and the store if it is not there.") { name, sizeArgument, size, from, store };
        command.SetAction((arguments, _) =>
        {
            string vdi = arguments.GetRequiredValue(name);
            string? sizeText = arguments.GetValue(size) ?? arguments.GetValue(sizeArgument);
            string? source = arguments.GetValue(from);
            string? where = arguments.GetValue(store);
            if (sizeText is null == source is null)
                throw new CommandException("give its size, as in 'ublkback vdi create web 20G', or what it is to "
                    + "hold, as in --from /images/web.img");
            if (source is not null) return ImportAsync(catalog, source, vdi, where);
            return VdiSession.RunAsync(
                where,
                vdis =>
                {
                    vdis.Create(vdi, ByteSize.Read(sizeText!));
                    return Task.FromResult(0);
                },
                makes: true);
        });
        return command;
    }

    public static Command MakeClone()
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

    public static Command MakeImport(CatalogMaker catalog)
    {
        Argument<string> target = new("target") { Description = "The target that is read." };
        Argument<string> name = new("name") { Description = "The name of the new VDI." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("import", "Make a VDI with the content of any target. Zeros are left out.") { target, name, store };
        command.SetAction((arguments, _) => ImportAsync(catalog, arguments.GetRequiredValue(target),
            arguments.GetRequiredValue(name), arguments.GetValue(store)));
        return command;
    }

    public static Command MakeExport(CatalogMaker catalog)
    {
        Argument<string> name = new("name") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Argument<string> target = new("target") { Description = "The target that is made: /path or qcow2:/path." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("export", "Copy a VDI or a snapshot to any target. Zeros are left out.") { name, target, store };
        command.SetAction((arguments, _) => ImageConvertCommand.RunAsync(
            catalog.MakeForTools(), VdiSession.TargetOf(arguments.GetRequiredValue(name), arguments.GetValue(store)),
            arguments.GetRequiredValue(target),
            compares: false, clusterText: null));
        return command;
    }

    private static Task<int> ImportAsync(CatalogMaker catalog, string source, string name, string? store) =>
        ImageConvertCommand.RunAsync(
            catalog.MakeForTools(), source, VdiSession.TargetOf(name, store), compares: false, clusterText: null);
}
