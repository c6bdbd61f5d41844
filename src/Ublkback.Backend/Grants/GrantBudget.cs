namespace Ublkback.Backend.Grants;

/// <summary>
/// How many pages of guests the daemon keeps mapped. Each may take one of the memory areas of which a process has 65530
/// (vm.max_map_count). A domain leaves as many free as it takes, so that others always find some. Any thread.
/// </summary>
public sealed class GrantBudget
{
    /// <summary>Most pages in all: half of the areas of a process.</summary>
    public const int MaxPages = 32768;

    private readonly Lock _lock = new();
    private readonly Dictionary<ushort, int> _byDomain = [];
    private int _taken;

    /// <summary>Takes pages for a domain; false when there are not so many left for it.</summary>
    public bool TryTake(ushort domid, int pages)
    {
        lock (_lock)
        {
            int own = _byDomain.GetValueOrDefault(domid);
            if (own + pages > MaxPages - _taken - pages) return false;
            _byDomain[domid] = own + pages;
            _taken += pages;
            return true;
        }
    }

    /// <summary>Pages of all domains that are taken now.</summary>
    public int Taken
    {
        get
        {
            lock (_lock) return _taken;
        }
    }

    /// <summary>Returns pages of a domain; none, if it took none.</summary>
    public void Return(ushort domid, int pages)
    {
        if (pages == 0) return;
        lock (_lock)
        {
            _taken -= pages;
            if ((_byDomain[domid] -= pages) == 0) _byDomain.Remove(domid);
        }
    }
}
