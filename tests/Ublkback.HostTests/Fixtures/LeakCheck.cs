using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// Removes all disks of a daemon, as a toolstack does by force, and reports what the daemon then still holds.
/// </summary>
/// <param name="layout">The emulated host.</param>
/// <param name="store">A connection to its store.</param>
/// <param name="daemon">The process number of the daemon.</param>
/// <param name="images">The folder that images lie in.</param>
internal sealed class LeakCheck(HostLayout layout, XenStoreClient store, int daemon, string images)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(10);

    /// <summary>Removes all disks, and returns what the daemon still holds after 10 s.</summary>
    public async Task<string[]> RemoveDisksAndFindLeaksAsync()
    {
        await RemoveDisksAsync();
        using CancellationTokenSource limit = new(Patience);
        while (true)
        {
            string[] remains = [.. await ReadListAsync(), .. FindDescriptors(), .. FindThreads()];
            if (remains.Length == 0 || limit.IsCancellationRequested) return remains;
            await Task.Delay(Interval);
        }
    }

    private async Task RemoveDisksAsync()
    {
        foreach (string kind in new[] { "vbd", "vbd3" })
        {
            string home = $"/local/domain/0/backend/{kind}";
            foreach (string domid in await ListAsync(home))
            {
                foreach (string device in await ListAsync($"{home}/{domid}"))
                {
                    if (await store.ReadAsync($"{home}/{domid}/{device}/frontend") is string frontend)
                        await store.RemoveAsync(frontend);
                    await store.RemoveAsync($"{home}/{domid}/{device}");
                }
            }
        }
    }

    private async Task<string[]> ListAsync(string path) => await store.ListAsync(path) ?? [];

    private async Task<string[]> ReadListAsync()
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(Path.Combine(layout.RunDirectory, "control.sock")));
        using NetworkStream stream = new(socket);
        await stream.WriteAsync("{\"version\":1,\"command\":\"list\"}\n"u8.ToArray());
        using StreamReader reader = new(stream, Encoding.UTF8);
        using JsonDocument reply = JsonDocument.Parse(await reader.ReadToEndAsync());
        JsonElement process = reply.RootElement.GetProperty("process");
        return
        [
            .. reply.RootElement.GetProperty("vbds").EnumerateArray().Select(vbd => $"the disk {vbd}"),
            .. Nonzero(process, "mappedPages"), .. Nonzero(process, "ringSlots"),
        ];
    }

    private static IEnumerable<string> Nonzero(JsonElement process, string name)
    {
        int value = process.GetProperty(name).GetInt32();
        if (value != 0) yield return string.Create(CultureInfo.InvariantCulture, $"{name} {value}");
    }

    // Images and what lies beside them; journals.
    private IEnumerable<string> FindDescriptors() =>
        Directory.EnumerateFileSystemEntries($"/proc/{daemon}/fd")
            .Select(link => new FileInfo(link).LinkTarget ?? "")
            .Where(target => (target.StartsWith(images, StringComparison.Ordinal)
                    && !target.StartsWith(layout.Root, StringComparison.Ordinal)
                    && !target.EndsWith(".log", StringComparison.Ordinal))
                || target.StartsWith(Path.Combine(layout.RunDirectory, "journal"), StringComparison.Ordinal))
            .Select(target => $"the open file {target}");

    // A disk's own worker bears its name.
    private IEnumerable<string> FindThreads() =>
        Directory.EnumerateDirectories($"/proc/{daemon}/task").Select(NameOf)
            .Where(name => name.StartsWith("dom", StringComparison.Ordinal))
            .Select(name => $"the thread {name}");

    private static string NameOf(string task)
    {
        try
        {
            return File.ReadAllText(Path.Combine(task, "comm"));
        }
        catch (IOException)
        {
            return ""; // it has ended
        }
    }
}
