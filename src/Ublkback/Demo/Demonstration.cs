using System.Globalization;
using System.Security.Cryptography;
using Spectre.Console;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.EmulatedHost;
using Ublkback.Hosting;
using Ublkback.XenStore;

namespace Ublkback.Demo;

/// <summary>
/// Shows the main job without Xen: an emulated host, the daemon and a guest, each a process of its own, move data
/// through a disk image, check it, and say how it went.
/// </summary>
internal sealed class Demonstration(TimeSpan mixTime)
{
    private const long ImageBytes = 128 << 20;
    private const int Domid = 1;
    private const int DeviceId = 51712; // xvda

    private readonly string _directory = Directory.CreateTempSubdirectory("ublkback-demo-").FullName;

    private readonly List<(string Phase, int Requests, long Bytes, double Seconds)> _results = [];
    private string? _guestChecksum;

    private string Image => Path.Combine(_directory, "disk.img");

    public async Task<int> RunAsync()
    {
        try
        {
            return await ShowAsync().ConfigureAwait(false);
        }
        catch (Exception failure)
            when (failure is ToolstackException or XenStoreException or TimeoutException or NoDaemonException)
        {
            string path = PrivateHost.LogOf(_directory);
            string log = File.Exists(path) ? await File.ReadAllTextAsync(path).ConfigureAwait(false) : "";
            throw new CommandException($"the demonstration failed: {failure.Message}\n{log}", failure);
        }
        finally
        {
            Directory.Delete(_directory, recursive: true);
        }
    }

    private async Task<int> ShowAsync()
    {
        Say("An emulated Xen host: a store that speaks xenstore's protocol, grants, event channels");
        Say("The daemon, as systemd would start it on a real host");
        await using PrivateHost host = await PrivateHost.StartAsync(_directory).ConfigureAwait(false);

        Say($"A disk image of {ImageBytes >> 20} MiB, attached to a guest as xl does, with the hotplug script");
        using (FileStream image = File.Create(Image)) image.SetLength(ImageBytes);
        await host.Toolstack.CreateDomainAsync(Domid).ConfigureAwait(false);
        DiskConfiguration disk = new(DeviceId, Image, host.Script);
        await host.Toolstack.AttachAsync(Domid, disk).ConfigureAwait(false);

        Say("A guest that uses the disk through its ring and checks all that it reads");
        bool isGood = await RunGuestAsync(host.Environment).ConfigureAwait(false);
        DaemonReply figures = await ControlClient.AskAsync(host.Environment, StatsCommand.Control, new StatsRequest())
            .ConfigureAwait(false);
        await host.Toolstack.DetachAsync(Domid, disk).ConfigureAwait(false);

        isGood &= await CompareImageAsync().ConfigureAwait(false);
        ShowSummary(figures);
        AnsiConsole.MarkupLine(isGood
            ? "[green]Every byte was right.[/] Next: README.md says how to do this on a real Xen."
            : "[red]Data was wrong or requests failed.[/]");
        return isGood ? 0 : 1;
    }

    private static void Say(string what) => AnsiConsole.MarkupLine($"[blue]•[/] {Markup.Escape(what)}");

    private async Task<bool> RunGuestAsync(HostEnvironment host)
    {
        await using ChildProcess guest = ChildProcess.Start(
            PrivateHost.LogOf(_directory), new Dictionary<string, string>(), "demo-guest", "--host",
            host.Emulated!.Root,
            "--domid", Domid.ToString(CultureInfo.InvariantCulture),
            "--device", DeviceId.ToString(CultureInfo.InvariantCulture),
            "--seconds", mixTime.TotalSeconds.ToString(CultureInfo.InvariantCulture));
        await AnsiConsole.Progress().StartAsync(async progress =>
        {
            Dictionary<string, ProgressTask> tasks = [];
            while (await guest.Output.ReadLineAsync().ConfigureAwait(false) is string line)
            {
                switch (line.Split('\t'))
                {
                    case ["progress", string phase, string fraction]:
                        Task(phase).Value = double.Parse(fraction, CultureInfo.InvariantCulture);
                        break;
                    case ["result", string phase, string requests, string bytes, string seconds, _]:
                        Task(phase).Value = 1;
                        _results.Add((phase, int.Parse(requests, CultureInfo.InvariantCulture),
                            long.Parse(bytes, CultureInfo.InvariantCulture),
                            double.Parse(seconds, CultureInfo.InvariantCulture)));
                        break;
                    case ["checksum", string checksum]:
                        _guestChecksum = checksum;
                        break;
                }
            }

            ProgressTask Task(string phase)
            {
                if (!tasks.TryGetValue(phase, out ProgressTask? task))
                    tasks[phase] = task = progress.AddTask(phase, maxValue: 1);
                return task;
            }
        }).ConfigureAwait(false);
        return await guest.WaitAsync().ConfigureAwait(false) == 0;
    }

    private async Task<bool> CompareImageAsync()
    {
        await using FileStream image = File.OpenRead(Image);
        string checksum = Convert.ToHexString(await SHA256.HashDataAsync(image).ConfigureAwait(false));
        Say($"SHA-256 of the image {(checksum == _guestChecksum ? "equals" : "DIFFERS FROM")} what the guest read: "
            + $"{checksum[..16].ToLowerInvariant()}…");
        return checksum == _guestChecksum;
    }

    private void ShowSummary(DaemonReply figures)
    {
        Table table = Reports.Table("Phase", "Requests", "Data", "Seconds", "Requests/s", "Rate");
        foreach ((string phase, int requests, long bytes, double seconds) in _results)
        {
            table.AddRow(
                phase, requests.ToString("N0", CultureInfo.InvariantCulture), Reports.Size((ulong)bytes),
                seconds.ToString("F2", CultureInfo.InvariantCulture),
                (requests / seconds).ToString("N0", CultureInfo.InvariantCulture),
                Reports.Size((ulong)(bytes / seconds)) + "/s");
        }

        AnsiConsole.Write(table);
        foreach (VbdReport vbd in figures.Vbds)
        {
            IEnumerable<string> parts = (vbd.Operations ?? []).Select(operation => string.Create(
                CultureInfo.InvariantCulture,
                $"{operation.Requests:N0} × {operation.Operation.ToLowerInvariant()} (median {operation.P50Us:F0} "
                + $"µs, {operation.Errors} errors)"));
            Say($"The daemon's own count: {string.Join(", ", parts)}");
        }
    }
}
