using System.CommandLine;
using Mono.Unix.Native;
using Spectre.Console;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Vbds;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Linux.Workers;
using Ublkback.Plugins;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Commands;

/// <summary><c>ublkback doctor</c></summary>
internal static class DoctorCommand
{
    private const string Script = "/etc/xen/scripts/block-ublkback";

    private static readonly Version LeastKernel = new(6, 1);

    public static Command Make(CatalogMaker catalog)
    {
        Option<string> host = CommonOptions.Host();
        Command command = new("doctor", "Say what is missing on this host, and how to mend it.") { host };
        command.SetAction((arguments, _) => RunAsync(HostEnvironment.Parse(arguments.GetRequiredValue(host)), catalog));
        return command;
    }

    private static async Task<int> RunAsync(HostEnvironment host, CatalogMaker catalog)
    {
        List<Finding> findings = [Kernel(), IoUring()];
        if (host.Emulated is null)
        {
            findings.Add(Root());
            findings.Add(Device(DeviceHypervisor.GrantDevice, "xen-gntdev"));
            findings.Add(Device(DeviceHypervisor.EventDevice, "xen-evtchn"));
            findings.Add(HotplugScript());
            findings.Add(JournalRoom());
        }

        findings.Add(await StoreAsync(host).ConfigureAwait(false));
        findings.Add(await DaemonAsync(host).ConfigureAwait(false));

        catalog.Make(host, out IReadOnlyList<PluginReport> plugins);
        findings.AddRange(plugins.Select(plugin => new Finding(
            $"the plugin {plugin.File}{(plugin.Refusal is null ? $" ({plugin.Names})" : "")}", plugin.Refusal)));

        foreach (Finding finding in findings)
        {
            AnsiConsole.MarkupLine(
                $"{(finding.Cure is null ? "[green]ok[/]     " : "[red]missing[/]")}  {Markup.Escape(finding.What)}");
            if (finding.Cure is not null) Console.WriteLine($"         {finding.Cure}");
        }

        Console.WriteLine();
        foreach ((string what, string bound) in BackendLimits.All) Console.WriteLine($"limit    {what}: {bound}");
        return findings.TrueForAll(finding => finding.Cure is null) ? 0 : 1;
    }

    private static Finding Root() => new(
        "the user is root", Syscall.geteuid() == 0 ? null : "run the daemon, and this command, as root");

    private static Finding Kernel()
    {
        string release = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        string number = string.Concat(release.TakeWhile(c => char.IsAsciiDigit(c) || c == '.')).TrimEnd('.');
        bool isNew = Version.TryParse(number, out Version? version) && version >= LeastKernel;
        return new Finding(
            $"Linux {LeastKernel} or later (this is {release})", isNew ? null : "install a newer kernel");
    }

    private static Finding IoUring()
    {
        const string What = "io_uring";
        try
        {
            using Worker worker = new("doctor");
            return new Finding(What, null);
        }
        catch (LinuxException failure)
        {
            return new Finding(What, $"{failure.Message}: sysctl kernel.io_uring_disabled=0");
        }
    }

    private static Finding Device(string path, string module)
    {
        string? cure = null;
        if (!File.Exists(path)) cure = $"boot this machine under Xen, then modprobe {module}";
        else if (Syscall.access(path, AccessModes.R_OK | AccessModes.W_OK) != 0) cure = "run as root";
        return new Finding(path, cure);
    }

    private static Finding HotplugScript() => new(
        $"the hotplug script {Script}", File.Exists(Script) ? null : "run scripts/install from the source tree");

    private static Finding JournalRoom()
    {
        const string Place = "/run";
        const long LeastBytes = 16 << 20; // a hundred disks, each with two rings of 16 pages
        return new Finding(
            $"room for journals in {Place}",
            new DriveInfo(Place).AvailableFreeSpace >= LeastBytes
                ? null
                : $"make room in {Place}: 16 MiB are enough for a hundred disks");
    }

    private static async Task<Finding> StoreAsync(HostEnvironment host)
    {
        const string What = "xenstore";
        try
        {
            await using XenStoreClient store = host.OpenStore();
            string home = await BackendServices.FindHomeAsync(store).ConfigureAwait(false);
            return new Finding($"{What} ({home})", null);
        }
        catch (XenStoreException failure)
        {
            return new Finding(What, failure.Message);
        }
    }

    private static async Task<Finding> DaemonAsync(HostEnvironment host)
    {
        const string What = "the daemon";
        try
        {
            DaemonReply reply = await ControlClient.AskAsync(host, ListCommand.Control, new ListRequest())
                .ConfigureAwait(false);
            return new Finding($"{What} ({reply.Vbds.Count} disks)", null);
        }
        catch (RefusedMessageException failure)
        {
            return new Finding(What, failure.Message);
        }
        catch (NoDaemonException failure)
        {
            return new Finding(
                What, $"{failure.Message}; without it xl waits 10 s and says only that the device timed out");
        }
    }

    private sealed record Finding(string What, string? Cure);
}
