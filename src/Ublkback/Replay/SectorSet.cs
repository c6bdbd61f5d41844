namespace Ublkback.Replay;

/// <summary>A set of sectors, kept as ranges that do not touch.</summary>
internal sealed class SectorSet
{
    private readonly SortedList<ulong, ulong> _ranges = []; // first to end

    /// <summary>Whether any sector of a range is in it.</summary>
    public bool Overlaps(ulong first, ulong count)
    {
        int index = FindFirstEndingAfter(first);
        return index < _ranges.Count && _ranges.GetKeyAtIndex(index) < first + count;
    }

    /// <summary>Adds the sectors of a range.</summary>
    public void Add(ulong first, ulong count)
    {
        ulong end = first + count;
        for (int index = FindFirstEndingAfter(first); index < _ranges.Count && _ranges.GetKeyAtIndex(index) < end;)
        {
            first = Math.Min(first, _ranges.GetKeyAtIndex(index));
            end = Math.Max(end, _ranges.GetValueAtIndex(index));
            _ranges.RemoveAt(index);
        }

        _ranges[first] = end;
    }

    /// <summary>Takes the sectors of a range out of it.</summary>
    public void Remove(ulong first, ulong count)
    {
        ulong end = first + count;
        for (int index = FindFirstEndingAfter(first); index < _ranges.Count
            && _ranges.GetKeyAtIndex(index) < end; index = FindFirstEndingAfter(first))
        {
            ulong from = _ranges.GetKeyAtIndex(index), to = _ranges.GetValueAtIndex(index);
            _ranges.RemoveAt(index);
            if (from < first) _ranges[from] = first;
            if (to > end) _ranges[end] = to;
        }
    }

    private int FindFirstEndingAfter(ulong sector)
    {
        int low = 0, high = _ranges.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_ranges.GetValueAtIndex(middle) > sector) high = middle;
            else low = middle + 1;
        }

        return low;
    }
}
