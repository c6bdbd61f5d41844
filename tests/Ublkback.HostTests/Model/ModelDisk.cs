namespace Ublkback.HostTests.Model;

/// <summary>
/// What a disk may hold: for each sector a settled content, and the writes since then in their order. The last of them
/// may be unanswered: then the sector holds either. Any thread.
/// </summary>
internal sealed class ModelDisk(long[] content)
{
    private readonly Lock _gate = new();
    private long[] _settled = content;
    private List<ModelEntry>?[] _later = new List<ModelEntry>?[content.Length];
    private bool[] _isBusy = new bool[content.Length];

    /// <summary>Size in sectors.</summary>
    public int Sectors => _settled.Length;

    /// <summary>Another content that the whole disk may have: a rollback was begun. Null if there is none.</summary>
    public long[]? Alternative { get; set; }

    /// <summary>Begins a write; returns null if another one is in flight there.</summary>
    public ModelWrite? TryBegin(int first, int count, long token, ModelClock clock)
    {
        lock (_gate)
        {
            if (first + count > Sectors || _isBusy.AsSpan(first, count).Contains(true)) return null;
            ModelWrite write = new(token, clock.Next());
            _isBusy.AsSpan(first, count).Fill(true);
            for (int sector = first; sector < first + count; sector++)
                (_later[sector] ??= []).Add(new ModelEntry(write));
            return write;
        }
    }

    /// <summary>A write was answered. Throws if it was found lost before.</summary>
    public void End(ModelWrite write, int first, int count, ModelClock clock)
    {
        lock (_gate)
        {
            if (write.IsLost) throw new ModelException($"write {write.Token} was answered after it was lost");
            write.Answered = clock.Next();
            if (write.IsSettled) return; // others write there by now
            int end = Math.Min(first + count, Sectors);
            if (first < end) _isBusy.AsSpan(first, end - first).Clear();
        }
    }

    /// <summary>Returns what is wrong with a content that was read; null if nothing is.</summary>
    public string? Compare(long[] found)
    {
        lock (_gate)
        {
            if (Alternative is { } other && Matches(other, found)) return null;
            List<string> wrong = [];
            for (int sector = 0; sector < Math.Min(found.Length, Sectors); sector++)
            {
                long last = LastOf(sector, answered: false), before = LastOf(sector, answered: true);
                if (found[sector] != last && found[sector] != before)
                    wrong.Add($"{sector} holds {found[sector]}, not {before}{(last == before ? "" : $" or {last}")}");
            }

            return Describe(wrong);
        }
    }

    /// <summary>Settles the unanswered writes by a content that was read, and is right.</summary>
    public void Settle(long[] found, ModelClock clock)
    {
        lock (_gate)
        {
            if (Alternative is { } other && Matches(other, found)) return;
            long now = clock.Next();
            for (int sector = 0; sector < Math.Min(found.Length, Sectors); sector++)
            {
                _isBusy[sector] = false;
                if (_later[sector] is not [.., { IsOpen: true } last]) continue;
                last.Write.IsSettled = true;
                if (last.Write.Token == found[sector])
                {
                    last.SettledAt = now;
                }
                else
                {
                    last.Write.IsLost = true;
                    _later[sector]!.RemoveAt(_later[sector]!.Count - 1);
                }
            }
        }
    }

    /// <summary>Forgets what was before the last writes. All are settled.</summary>
    public void Forget()
    {
        lock (_gate)
        {
            _settled = Content();
            _later = new List<ModelEntry>?[_settled.Length];
        }
    }

    /// <summary>Returns the content; all writes are settled.</summary>
    public long[] Content()
    {
        lock (_gate) return [.. Enumerable.Range(0, Sectors).Select(sector => LastOf(sector, answered: true))];
    }

    /// <summary>The disk was rolled back.</summary>
    public void Replace(long[] content)
    {
        lock (_gate)
        {
            Alternative = null;
            _settled = [.. content];
            _later = new List<ModelEntry>?[content.Length];
            _isBusy = new bool[content.Length];
        }
    }

    /// <summary>The disk has another size. What is added is zeros.</summary>
    public void Resize(int sectors)
    {
        lock (_gate)
        {
            Array.Resize(ref _settled, sectors);
            Array.Resize(ref _later, sectors);
            Array.Resize(ref _isBusy, sectors);
        }
    }

    /// <summary>
    /// Returns what is wrong with a snapshot that was created between two moments; null if it is the disk at one of
    /// them.
    /// </summary>
    public string? CompareSnapshot(long[] found, long begin, long end)
    {
        lock (_gate)
        {
            long from = begin, to = end;
            List<string> wrong = [];
            List<IReadOnlyList<(long From, long To)>> ambiguous = [];
            for (int sector = 0; sector < Math.Min(found.Length, Sectors); sector++)
            {
                List<(long From, long To)> moments = MomentsOf(sector, found[sector]);
                if (moments.Count == 0) wrong.Add($"{sector} holds {found[sector]}, which it never held");
                if (moments.Count > 1) ambiguous.Add(moments);
                if (moments.Count != 1) continue;
                (from, to) = (Math.Max(from, moments[0].From), Math.Min(to, moments[0].To));
                if (from > to) wrong.Add($"{sector} holds {found[sector]} of another moment than the sectors before");
            }

            if (wrong.Count > 0) return Describe(wrong);
            IEnumerable<long> starts = ambiguous.SelectMany(moments => moments).Select(moment => moment.From);
            return starts.Append(from).Where(at => at >= from && at <= to).Any(at =>
                ambiguous.All(moments => moments.Any(moment => moment.From <= at && at <= moment.To)))
                ? null
                : "its zeros are of no single moment";
        }
    }

    // When a sector may have held a content: from when that was sent until the next one was answered.
    private List<(long From, long To)> MomentsOf(int sector, long token)
    {
        List<(long, long)> moments = [];
        List<ModelEntry> later = _later[sector] ?? [];
        for (int i = -1; i < later.Count; i++)
        {
            long held = i < 0 ? _settled[sector] : later[i].Write.Token;
            if (held != token) continue;
            moments.Add((
                i < 0 ? 0 : later[i].Write.Issued, i + 1 < later.Count ? later[i + 1].Answered : long.MaxValue));
        }

        return moments;
    }

    private long LastOf(int sector, bool answered)
    {
        List<ModelEntry> later = _later[sector] ?? [];
        int at = later.Count - 1;
        if (answered && at >= 0 && later[at].IsOpen) at--;
        return at < 0 ? _settled[sector] : later[at].Write.Token;
    }

    private static bool Matches(long[] one, long[] other) =>
        one.AsSpan(0, Math.Min(one.Length, other.Length))
            .SequenceEqual(other.AsSpan(0, Math.Min(one.Length, other.Length)));

    private static string? Describe(List<string> wrong) =>
        wrong.Count == 0 ? null : $"{wrong.Count} wrong sectors: {string.Join("; ", wrong.Take(3))}";
}

/// <summary>A write as one sector has it.</summary>
internal sealed class ModelEntry(ModelWrite write)
{
    public ModelWrite Write => write;

    /// <summary>When the sector was found to have it; the end of time if it was not looked at.</summary>
    public long SettledAt { get; set; } = long.MaxValue;

    public long Answered => Math.Min(write.Answered, SettledAt);

    public bool IsOpen => Answered == long.MaxValue;
}

/// <summary>A disk or an answer is not what the model allows.</summary>
internal sealed class ModelException(string message) : Exception(message);

/// <summary>Counts the model's events in the order in which they are seen.</summary>
internal sealed class ModelClock
{
    private long _now;

    public long Next() => Interlocked.Increment(ref _now);
}
