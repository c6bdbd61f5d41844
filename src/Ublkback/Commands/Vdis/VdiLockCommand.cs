using System.CommandLine;
using System.Text.Json;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi lock</c></summary>
internal static class VdiLockCommand
{
    public static Command Make()
    {
        Argument<string> name = new("name") { Description = "The VDI." };
        Option<bool> breaks = new("--break")
        {
            Description =
            "Take it away from who does not answer any more. Refused when who has it is alive."
        };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new("lock", """
            Show who has a VDI open for writing.

            In a folder the lock is the kernel's and ends with the process that holds it, so there is none to break.
            In a pool, a writer that crashed on this host is replaced by the next process that opens the VDI. One that
            crashed on another host, is stopped or is cut off, is replaced after 10 s of silence when a guest is
            attached, or by --break. What a replaced writer still writes is refused.
            """) { name, breaks, json, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            string vdi = arguments.GetRequiredValue(name);
            if (arguments.GetValue(breaks)) vdis.BreakLock(vdi);
            VdiInfo info = vdis.Describe(vdi);
            if (arguments.GetValue(json))
                Console.WriteLine(JsonSerializer.Serialize(info, VdiReportJson.Default.VdiInfo));
            else Console.WriteLine(info.Holder is null ? $"{vdi} is not in use" : $"{vdi} is in use by {info.Holder}");
            return Task.FromResult(0);
        }));
        return command;
    }
}
