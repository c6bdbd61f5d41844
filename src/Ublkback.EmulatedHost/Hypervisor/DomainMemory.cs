using System.Runtime.InteropServices;
using Mono.Unix.Native;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.EmulatedHost.Hypervisor;

/// <summary>
/// A domain's memory, mapped: first its grant table (version 1 of Xen's, xen/grant_table.h), then its pages.
/// </summary>
internal sealed unsafe class DomainMemory : IDisposable
{
    /// <summary>Bytes of memory of a domain; pages cost memory when touched.</summary>
    public const long Length = 256 << 20;

    /// <summary>Pages that the grant table takes at the start.</summary>
    public const int TablePages = 128;

    /// <summary>Entries of the grant table.</summary>
    public const int GrantCount = TablePages * MemoryMapping.PageSize / 8;

    /// <summary>Pages in all.</summary>
    public const int PageCount = (int)(Length / MemoryMapping.PageSize);

    private readonly MemoryMapping _mapping;

    public DomainMemory(HostLayout layout, int domid)
    {
        File = FileDescriptor.Open(layout.DomainMemory(domid), OpenFlags.O_RDWR);
        _mapping = MemoryMapping.Shared(File, 0, Length);
        Inode = FileStatus.Of(File).Inode;
    }

    /// <summary>The memory as a file.</summary>
    public FileDescriptor File { get; }

    /// <summary>Tells this domain's memory from that of another of the same number.</summary>
    public ulong Inode { get; }

    /// <summary>Entries of the grant table.</summary>
    public Span<GrantEntry> Grants => new(_mapping.Address, GrantCount);

    /// <summary>Address of a page.</summary>
    public byte* Page(uint frame) => _mapping.Address + ((long)frame * MemoryMapping.PageSize);

    /// <summary>The page that a grant gives to a domain; otherwise the hypervisor's status.</summary>
    public short Resolve(uint reference, ushort forDomid, bool writes, out uint frame)
    {
        frame = 0;
        if (reference >= GrantCount) return GrantCopy.BadReference;
        GrantEntry entry = Grants[(int)reference]; // read once: the guest may change it
        if ((entry.Flags & GrantEntry.PermitAccess) == 0 || entry.Frame >= PageCount) return GrantCopy.BadReference;
        if (entry.Domid != forDomid) return GrantCopy.PermissionDenied;
        if (writes && (entry.Flags & GrantEntry.ReadOnly) != 0) return GrantCopy.GeneralError;
        frame = entry.Frame;
        return GrantCopy.Okay;
    }

    public void Dispose()
    {
        _mapping.Dispose();
        File.Dispose();
    }
}

/// <summary>struct grant_entry_v1.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct GrantEntry
{
    public const ushort PermitAccess = 1; // GTF_permit_access
    public const ushort ReadOnly = 4; // GTF_readonly

    public ushort Flags;
    public ushort Domid;
    public uint Frame;
}
