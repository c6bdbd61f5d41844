using System.Globalization;
using Mono.Unix.Native;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.EmulatedHost.Store;
using Ublkback.Linux.Kernel;
using Ublkback.XenStore;

namespace Ublkback.EmulatedHost;

/// <summary>
/// A Xen host without Xen: a directory with a store, and for each introduced domain memory with a grant table and event
/// channels. Daemon, toolstack and guests are other processes that find everything there.
/// </summary>
public sealed class EmulatedXen : IAsyncDisposable
{
    private readonly Dictionary<int, MemoryFile> _memories = [];

    private EmulatedXen(HostLayout layout) => Layout = layout;

    /// <summary>Where things are.</summary>
    public HostLayout Layout { get; }

    /// <summary>The store, for tests that disturb it.</summary>
    public StoreServer Store { get; } = new();

    /// <summary>Makes a host in a directory, which is created if missing.</summary>
    public static async Task<EmulatedXen> StartAsync(string directory)
    {
        EmulatedXen host = new(new HostLayout(Path.GetFullPath(directory)));
        Directory.CreateDirectory(Path.GetDirectoryName(host.Layout.StoreSocket)!);
        Directory.CreateDirectory(host.Layout.RunDirectory);
        host.Store.DomainChanged += host.OnDomainChanged;
        host.Store.Listen(host.Layout.StoreSocket, domid: 0);

        // What xen-init-dom0 does.
        await using XenStoreClient store = XenStoreClient.Open(new XenStoreTransport(host.Layout.StoreSocket));
        await store.WriteAsync("/local/domain/0/domid", "0").ConfigureAwait(false);
        await store.WriteAsync("/local/domain/0/name", "Domain-0").ConfigureAwait(false);
        return host;
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync().ConfigureAwait(false);
        foreach (MemoryFile memory in _memories.Values) memory.Dispose();
    }

    private void OnDomainChanged(int domid, bool isThere)
    {
        if (isThere) Add(domid);
        else Remove(domid);
    }

    private void Add(int domid)
    {
        Directory.CreateDirectory(Layout.PortDirectory(domid));
        MemoryFile memory = MemoryFile.CreateSealed(
            string.Create(CultureInfo.InvariantCulture, $"domain-{domid}"), DomainMemory.Length);
        _memories[domid] = memory;
        string link = Layout.DomainMemory(domid);
        File.Delete(link);
        File.CreateSymbolicLink(
            link,
            string.Create(CultureInfo.InvariantCulture, $"/proc/{Syscall.getpid()}/fd/{memory.Descriptor.Number}"));
        Store.Listen(Layout.DomainSocket(domid), domid);
    }

    private void Remove(int domid)
    {
        Store.StopListening(Layout.DomainSocket(domid), domid);
        if (_memories.Remove(domid, out MemoryFile? memory)) memory.Dispose();
        Directory.Delete(Layout.DomainDirectory(domid), recursive: true);
    }
}
