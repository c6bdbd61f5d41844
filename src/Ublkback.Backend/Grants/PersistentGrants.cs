using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Grants;

/// <summary>
/// The pages that a frontend keeps granted (feature-persistent) and one ring has mapped: their data is copied by
/// memcpy. A page is mapped when a request first names it, and stays so until the ring is released. No I/O of the
/// kernel ever touches these pages.
/// </summary>
/// <remarks>
/// Mapping may block, so it happens on a helper thread while the requests concerned wait. Pages beyond the limits, and
/// those that cannot be mapped, are copied by the hypervisor. All members are for the ring's worker but
/// <see cref="Dispose"/>.
/// </remarks>
[DataPath]
internal sealed class PersistentGrants : IDisposable
{
    /// <summary>Most pages of one ring: 16 requests of 256 segments with their pages of segments, rounded up.</summary>
    public const int MaxPagesPerRing = 4224;

    /// <summary>Most pages mapped in one call.</summary>
    public const int MaxPagesPerCall = 512;

    private const int MaxFailures = 8; // a frontend that cannot keep its word is served by copies

    private readonly Dictionary<uint, nint> _pages = [];
    private readonly List<IGrantMapping> _mappings = [];
    private readonly HashSet<uint> _wanted = [];
    private readonly IHypervisor _hypervisor;
    private readonly GrantBudget _budget;
    private readonly ushort _domid;
    private int _taken;
    private int _failures;

    public PersistentGrants(IHypervisor hypervisor, GrantBudget budget, ushort domid)
    {
        _hypervisor = hypervisor;
        _budget = budget;
        _domid = domid;
    }

    /// <summary>Pages mapped now; any thread, may be a moment old.</summary>
    public int Count => _pages.Count;

    /// <summary>Whether a helper is mapping pages.</summary>
    public bool IsMapping { get; private set; }

    /// <summary>Finds the address of a granted page.</summary>
    public bool TryFind(uint gref, out nint address) => _pages.TryGetValue(gref, out address);

    /// <summary>Remembers a request's pages to be mapped, once, as soon as its segments are known.</summary>
    public void Want(RingRequest request)
    {
        bool isIndirect = request.Wire.Operation == BlkifOperation.Indirect;
        if (request.IsMapped || (isIndirect && !request.IsChecked)) return;
        request.IsMapped = true;
        foreach (BlkifSegment segment in request.Segments) Want(segment.Gref);
        if (isIndirect) Want(request.Wire.DescriptorReference);
    }

    // Unless the page is mapped or there is no room for it.
    private void Want(uint gref)
    {
        if (_failures >= MaxFailures || _pages.ContainsKey(gref)) return;
        if (_wanted.Count >= MaxPagesPerCall || _pages.Count + _wanted.Count >= MaxPagesPerRing) return;
        _wanted.Add(gref);
    }

    /// <summary>
    /// Maps the wanted pages on a helper thread and then runs the action on the worker. False when there are none.
    /// </summary>
    public bool TryMapWanted(Worker worker, Action onMapped)
    {
        if (_wanted.Count == 0) return false;
        uint[] references = [.. _wanted]; // off the path: pages of the guest are mapped once
        _wanted.Clear();
        if (!_budget.TryTake(_domid, references.Length)) return false;
        StartMapping(references, worker, onMapped);
        return true;
    }

    /// <summary>Unmaps all. On a helper thread, when nobody uses the ring any more.</summary>
    public void Dispose()
    {
        foreach (IGrantMapping mapping in _mappings) mapping.Dispose();
        _budget.Return(_domid, _taken);
        _taken = 0;
        _mappings.Clear();
        _pages.Clear();
    }

    // Apart, so that what the helper captures is allocated only here.
    private void StartMapping(uint[] references, Worker worker, Action onMapped)
    {
        IsMapping = true;
        _ = Task.Run(() => // off the path: pages of the guest are mapped once
        {
            IGrantMapping? mapping = Map(references);
            worker.Post(() =>
            {
                IsMapping = false;
                if (mapping is null) _failures++;
                else Keep(references, mapping);
                onMapped();
            });
        });
    }

    private IGrantMapping? Map(uint[] references)
    {
        try
        {
            return _hypervisor.MapGrants(_domid, references);
        }
        catch (LinuxException)
        {
            // One reference among them is bad; the copies tell which.
            _budget.Return(_domid, references.Length);
            return null;
        }
    }

    private void Keep(uint[] references, IGrantMapping mapping)
    {
        _taken += references.Length;
        _mappings.Add(mapping);
        for (int i = 0; i < references.Length; i++)
            _pages.Add(references[i], mapping.Address + (i * BlkifConstants.PageSize));
    }
}
