using System.CommandLine;
using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi create</c></summary>
internal static class VdiCreateCommand
{
    public static Command Make(CatalogMaker catalog)
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
            if (source is not null) return VdiImportCommand.RunAsync(catalog, source, vdi, where);
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
}
