using System.Collections.Concurrent;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.EmulatedHost.Hypervisor;

/// <summary>What a backend in an emulated host's domain sees of the hypervisor.</summary>
/// <param name="layout">The host.</param>
/// <param name="ownDomid">The backend's domain.</param>
public sealed unsafe class EmulatedHypervisor(HostLayout layout, ushort ownDomid) : IHypervisor
{
    private readonly ConcurrentDictionary<ushort, DomainMemory> _memories = new();
    private readonly ConcurrentBag<DomainMemory> _replaced = [];

    /// <inheritdoc/>
    public IGrantMapping MapGrants(ushort domid, ReadOnlySpan<uint> references)
    {
        DomainMemory memory = FindAnew(domid);
        MemoryMapping mapping = MemoryMapping.Anonymous((long)references.Length * MemoryMapping.PageSize);
        for (int i = 0; i < references.Length; i++)
        {
            if (memory.Resolve(references[i], ownDomid, writes: true, out uint frame) != GrantCopy.Okay)
            {
                mapping.Dispose();
                throw new LinuxException(
                    LinuxError.InvalidArgument, $"mapping grant reference {references[i]} of domain {domid}");
            }

            mapping.Replace(
                (long)i * MemoryMapping.PageSize, memory.File, (long)frame * MemoryMapping.PageSize,
                MemoryMapping.PageSize, writable: true);
        }

        return new Mapping(mapping);
    }

    /// <inheritdoc/>
    public void CopyGrants(Span<GrantCopy> batch)
    {
        foreach (ref GrantCopy copy in batch) copy.Status = Copy(copy);
    }

    /// <inheritdoc/>
    public IEventChannel BindEventChannel(ushort domid, uint remotePort) =>
        EmulatedEventChannel.Bind(layout, domid, remotePort);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (DomainMemory memory in _memories.Values.Concat(_replaced)) memory.Dispose();
    }

    private short Copy(in GrantCopy copy)
    {
        bool isWrite = copy.Flags == GrantCopy.DestinationIsGrant;
        ushort domid = isWrite ? copy.DestinationDomid : copy.SourceDomid;
        uint reference = isWrite ? copy.DestinationReference : copy.SourceReference;
        ushort offset = isWrite ? copy.DestinationOffset : copy.SourceOffset;
        if (offset + copy.Length > MemoryMapping.PageSize)
            throw new LinuxException(LinuxError.InvalidArgument, "a grant copy past its page");
        DomainMemory memory = _memories[domid];
        short status = memory.Resolve(reference, ownDomid, isWrite, out uint frame);
        if (status != GrantCopy.Okay) return status;

        byte* place = memory.Page(frame) + offset;
        if (isWrite) Buffer.MemoryCopy((void*)copy.SourceAddress, place, copy.Length, copy.Length);
        else Buffer.MemoryCopy(place, (void*)copy.DestinationAddress, copy.Length, copy.Length);
        return GrantCopy.Okay;
    }

    // A number may have passed to another domain; rings are mapped first, so copies find the right memory.
    private DomainMemory FindAnew(ushort domid)
    {
        DomainMemory fresh;
        try
        {
            fresh = new DomainMemory(layout, domid);
        }
        catch (LinuxException)
        {
            throw new LinuxException(LinuxError.InvalidArgument, $"domain {domid}");
        }

        DomainMemory kept = _memories.AddOrUpdate(domid, fresh, (_, old) =>
        {
            if (old.Inode == fresh.Inode) return old;
            _replaced.Add(old);
            return fresh;
        });
        if (!ReferenceEquals(kept, fresh)) fresh.Dispose();
        return kept;
    }

    private sealed class Mapping(MemoryMapping mapping) : IGrantMapping
    {
        public nint Address => (nint)mapping.Address;

        public void Dispose() => mapping.Dispose();
    }
}
