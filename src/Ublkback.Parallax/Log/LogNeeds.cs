using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Log;

/// <summary>
/// Finds which blocks of a log are needed by versions of a disk that share its beginning: those that had not been
/// written over where one of the versions ends.
/// </summary>
/// <param name="ends">Where the versions end: of each the first batch that does not belong to it, in order.</param>
/// <param name="onNeeded">Takes the blocks.</param>
internal sealed class LogNeeds(IReadOnlyList<ulong> ends, Action<MapEntry> onNeeded)
{
    private readonly Dictionary<long, (MapEntry Place, ulong Sequence)> _last = [];
    private readonly SortedSet<long> _blocks = []; // the same ones, for what is written over by discards
    private int _passed;

    /// <summary>Takes the log's entries, up to the last of the ends.</summary>
    public void Visit(LogEntry entry, MapEntry place, ReadOnlySpan<byte> block, ulong sequence)
    {
        while (_passed < ends.Count && ends[_passed] <= sequence) _passed++;
        switch (entry.Kind)
        {
            case LogEntryKind.Data:
                WriteOver(entry.Subject);
                _last[entry.Subject] = (place, sequence);
                _blocks.Add(entry.Subject);
                break;
            case LogEntryKind.Discard:
                WriteOver(entry.Subject, entry.Subject + entry.Value);
                break;
            case LogEntryKind.Resize:
                WriteOver(VdiFormat.BlocksFor(entry.Subject * BlockRequest.SectorSize), long.MaxValue);
                break;
        }
    }

    /// <summary>There are no more.</summary>
    public void End()
    {
        foreach ((MapEntry place, _) in _last.Values) onNeeded(place);
    }

    private void WriteOver(long first, long end)
    {
        if (first >= end) return;
        foreach (long block in _blocks.GetViewBetween(first, end - 1).ToList())
        {
            WriteOver(block);
            _blocks.Remove(block);
        }
    }

    private void WriteOver(long block)
    {
        if (_last.Remove(block, out (MapEntry Place, ulong Sequence) last) && _passed > 0
            && last.Sequence < ends[_passed - 1])
            onNeeded(last.Place);
    }
}
