using Ublkback.Backend.Requests;
using Ublkback.Linux.Kernel;
using Ublkback.Xen;

namespace Ublkback.Backend.Grants;

/// <summary>
/// Grant copies gathered from many requests and made in one call. One for each worker: a ring that has its turn empties
/// it before the turn ends.
/// </summary>
[DataPath]
internal sealed class GrantCopyBatch(IHypervisor hypervisor)
{
    /// <summary>Copies made in one call at most.</summary>
    public const int Capacity = 1024;

    private readonly GrantCopy[] _copies = new GrantCopy[Capacity];
    private readonly RingRequest[] _owners = new RingRequest[Capacity];
    private int _count;

    /// <summary>
    /// Adds a copy for a request, which learns of a failure. When the batch is full, it is made first.
    /// </summary>
    public void Add(RingRequest owner, in GrantCopy copy)
    {
        if (_count == Capacity) Make();
        _owners[_count] = owner;
        _copies[_count++] = copy;
    }

    /// <summary>Makes all copies that were added.</summary>
    public void Make()
    {
        if (_count == 0) return;
        Span<GrantCopy> copies = _copies.AsSpan(0, _count);
        try
        {
            hypervisor.CopyGrants(copies);
        }
        catch (LinuxException failure)
        {
            // No element's status is valid then, so all fail.
            _owners[0].Log.FailedCopyBatch(failure.Message);
            foreach (ref GrantCopy copy in copies) copy.Status = GrantCopy.PermissionDenied;
        }

        for (int i = 0; i < copies.Length; i++)
        {
            if (copies[i].Status != GrantCopy.Okay) _owners[i].FailCopy(copies[i]);
        }

        _count = 0;
    }
}
