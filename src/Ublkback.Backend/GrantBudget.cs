namespace Ublkback.Backend;

/// <summary>
/// How many pages of guests the daemon keeps mapped in all. Each may take one of the memory areas of which a process has
/// 65530 (vm.max_map_count). Any thread.
/// </summary>
public sealed class GrantBudget
{
    /// <summary>Most pages: half of the areas of a process.</summary>
    public const int MaxPages = 32768;

    private int _taken;

    /// <summary>Pages taken now.</summary>
    public int Taken => Volatile.Read(ref _taken);

    /// <summary>Takes pages; false when there are not so many left.</summary>
    public bool TryTake(int pages)
    {
        if (Interlocked.Add(ref _taken, pages) <= MaxPages) return true;
        Interlocked.Add(ref _taken, -pages);
        return false;
    }

    /// <summary>Gives pages back.</summary>
    public void Return(int pages) => Interlocked.Add(ref _taken, -pages);
}
