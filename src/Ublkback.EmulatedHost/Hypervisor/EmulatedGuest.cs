using System.Collections.Concurrent;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.EmulatedHost.Hypervisor;

/// <summary>
/// A domain from the inside: it hands out its pages, grants them and allocates ports. One process acts for a domain.
/// Any thread.
/// </summary>
public sealed unsafe class EmulatedGuest : IDisposable
{
    private readonly DomainMemory _memory;
    private readonly ConcurrentStack<uint> _freePages = new();
    private readonly ConcurrentStack<uint> _freeGrants = new();
    private int _nextPage = DomainMemory.TablePages;
    private int _nextGrant = 8; // the first few are reserved (GNTTAB_NR_RESERVED_ENTRIES)
    private int _lastPort;

    /// <summary>Enters an introduced domain.</summary>
    public EmulatedGuest(HostLayout layout, int domid)
    {
        Layout = layout;
        Domid = domid;
        _memory = new DomainMemory(layout, domid);
        Directory.CreateDirectory(layout.PortDirectory(domid));
        foreach (string pipe in Directory.EnumerateFiles(layout.PortDirectory(domid), "*.to-peer"))
        {
            int port = int.Parse(
                Path.GetFileName(pipe).Split('.')[0], System.Globalization.CultureInfo.InvariantCulture);
            _lastPort = Math.Max(_lastPort, port);
        }
    }

    /// <summary>The domain's number.</summary>
    public int Domid { get; }

    /// <summary>The host.</summary>
    public HostLayout Layout { get; }

    /// <summary>Takes pages that lie side by side; returns the first one's number.</summary>
    public uint AllocatePages(int count)
    {
        if (count == 1 && _freePages.TryPop(out uint free)) return free;
        int first = Interlocked.Add(ref _nextPage, count) - count;
        return first + count <= DomainMemory.PageCount
            ? (uint)first
            : throw new InvalidOperationException($"domain {Domid} is out of memory");
    }

    /// <summary>Gives one page back.</summary>
    public void FreePage(uint page) => _freePages.Push(page);

    /// <summary>The content of pages that lie side by side.</summary>
    public Span<byte> Pages(uint first, int count) => new(_memory.Page(first), count * MemoryMapping.PageSize);

    /// <summary>Address of a page.</summary>
    public nint AddressOf(uint page) => (nint)_memory.Page(page);

    /// <summary>Grants a page to a domain.</summary>
    public uint Grant(uint page, int toDomid, bool isReadOnly = false)
    {
        if (!_freeGrants.TryPop(out uint reference)) reference = (uint)Interlocked.Increment(ref _nextGrant) - 1;
        if (reference >= DomainMemory.GrantCount)
            throw new InvalidOperationException($"domain {Domid} is out of grants");
        ref GrantEntry entry = ref _memory.Grants[(int)reference];
        entry.Frame = page;
        entry.Domid = (ushort)toDomid;
        // The rest is visible before the flags that make it valid.
        Volatile.Write(
            ref entry.Flags, (ushort)(GrantEntry.PermitAccess | (isReadOnly ? GrantEntry.ReadOnly : 0)));
        return reference;
    }

    /// <summary>Takes a grant back.</summary>
    public void Revoke(uint reference)
    {
        _memory.Grants[(int)reference].Flags = 0;
        _freeGrants.Push(reference);
    }

    /// <summary>Allocates a port for another domain to bind to.</summary>
    public (uint Port, IEventChannel Channel) AllocatePort()
    {
        uint port = (uint)Interlocked.Increment(ref _lastPort);
        return (port, EmulatedEventChannel.Allocate(Layout, Domid, port));
    }

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();
}
