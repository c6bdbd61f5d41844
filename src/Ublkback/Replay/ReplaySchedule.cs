using Ublkback.Block;
using Ublkback.Hooks.Trace;

namespace Ublkback.Replay;

/// <summary>
/// When each request of a capture may start: when all have ended that had ended before it came, in the capture. So what
/// depended on each other does again, and as many are under way at once as were then.
/// </summary>
internal sealed class ReplaySchedule
{
    private readonly long[] _starts; // by order of starting, in microseconds, the openings one after another
    private readonly long[] _ends;
    private readonly int[] _byEnd;
    private readonly bool[] _hasEnded;
    private readonly bool[] _isComparable;
    private int _endedInOrder; // so many of _byEnd, from its beginning

    public ReplaySchedule(TraceCapture capture)
    {
        TraceCapture.Entry[] entries = [
            .. capture.Requests.OrderBy(entry => entry.Opening).ThenBy(entry => entry.Record.StartMicroseconds)];
        Entries = entries;
        _starts = new long[entries.Length];
        _ends = new long[entries.Length];
        long origin = 0, latest = 0;
        for (int i = 0; i < entries.Length; i++)
        {
            // The time between two openings is left out, and that before the first request.
            if (i == 0 || entries[i].Opening != entries[i - 1].Opening)
                origin = latest - entries[i].Record.StartMicroseconds;
            _starts[i] = origin + entries[i].Record.StartMicroseconds;
            _ends[i] = _starts[i] + entries[i].Record.LatencyMicroseconds;
            latest = Math.Max(latest, _ends[i]);
        }

        Length = TimeSpan.FromMicroseconds(latest);
        _byEnd = [.. Enumerable.Range(0, entries.Length).OrderBy(i => _ends[i])];
        _hasEnded = new bool[entries.Length];
        _isComparable = FindComparable();
    }

    /// <summary>The requests by when they came.</summary>
    public IReadOnlyList<TraceCapture.Entry> Entries { get; }

    /// <summary>How long it all took.</summary>
    public TimeSpan Length { get; }

    /// <summary>When a request came, from the beginning.</summary>
    public TimeSpan StartOf(int index) => TimeSpan.FromMicroseconds(_starts[index]);

    /// <summary>Whether all that a request came after have ended.</summary>
    public bool MayStart(int index) => _endedInOrder == _byEnd.Length || _ends[_byEnd[_endedInOrder]] >= _starts[index];

    /// <summary>A request has ended again.</summary>
    public void End(int index)
    {
        _hasEnded[index] = true;
        while (_endedInOrder < _byEnd.Length && _hasEnded[_byEnd[_endedInOrder]]) _endedInOrder++;
    }

    /// <summary>Whether a read of the capture must find the same data again.</summary>
    public bool IsComparable(int index) => _isComparable[index];

    // Of two requests that overlap and were under way at once, one of them a change, nobody can say which was first.
    private bool[] FindRaces()
    {
        bool[] isRace = new bool[Entries.Count];
        List<int> underWay = [];
        for (int i = 0; i < Entries.Count; i++)
        {
            underWay.RemoveAll(earlier => _ends[earlier] < _starts[i]);
            foreach (int earlier in underWay)
            {
                if (!Changes(earlier) && !Changes(i)) continue;
                if (!Overlap(Entries[earlier].Record, Entries[i].Record)) continue;
                isRace[earlier] = isRace[i] = true;
            }

            underWay.Add(i);
        }

        return isRace;
    }

    private bool[] FindComparable()
    {
        bool[] isRace = FindRaces(), isComparable = new bool[Entries.Count];
        SectorSet unknown = new();
        for (int i = 0; i < Entries.Count; i++)
        {
            TraceRecord record = Entries[i].Record;
            if (record.Operation == BlockOperation.Read)
                isComparable[i] = record.Status == BlockStatus.Okay && !isRace[i]
                    && !unknown.Overlaps(record.Sector, (ulong)record.SectorCount);
            else if (Entries[i].HasData && !isRace[i])
                unknown.Remove(record.Sector, (ulong)record.SectorCount);
            else if (Changes(i))
                unknown.Add(record.Sector, (ulong)record.SectorCount);
        }

        return isComparable;
    }

    private bool Changes(int index) =>
        Entries[index].Record.Operation is BlockOperation.Write or BlockOperation.Discard;

    private static bool Overlap(in TraceRecord a, in TraceRecord b) =>
        a.Sector < b.Sector + (ulong)b.SectorCount && b.Sector < a.Sector + (ulong)a.SectorCount;
}
