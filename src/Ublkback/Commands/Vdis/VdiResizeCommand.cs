using System.CommandLine;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi resize</c></summary>
internal static class VdiResizeCommand
{
    public static Command Make()
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Argument<string> size = new("size") { Description = "The new size, such as 20G, or +5G for so much more." };
        Option<bool> shrink =
            new("--shrink") { Description = "The new size is smaller, and what lies behind it is lost." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("resize", "Make a VDI larger, or smaller. What is added reads as zeros.") { name, size, shrink, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            VdiInfo info = vdis.Describe(arguments.GetRequiredValue(name));
            string text = arguments.GetRequiredValue(size);
            long bytes = ByteSize.Read(text.TrimStart('+')) + (text.StartsWith('+') ? info.SizeBytes : 0);
            if (bytes < info.SizeBytes && !arguments.GetValue(shrink))
                throw new CommandException(
                    $"{info.Name} has {Reports.Size((ulong)info.SizeBytes)}, and what lies behind "
                        + $"{Reports.Size((ulong)Math.Max(0, bytes))} would be lost",
                    "say --shrink if it is not needed");
            if (bytes < info.SizeBytes && info.Holder is not null)
                throw new CommandException(
                    $"{info.Name} is in use by {info.Holder}: it can be made smaller when it is not");
            await vdis.ResizeAsync(info.Name, bytes).ConfigureAwait(false);
            if (info.Holder is not null) await VdiSession.TellGuestAsync().ConfigureAwait(false);
            Console.WriteLine(
                $"{info.Name}: {Reports.Size((ulong)info.SizeBytes)} before, {Reports.Size((ulong)bytes)} now");
            return 0;
        }));
        return command;
    }
}
