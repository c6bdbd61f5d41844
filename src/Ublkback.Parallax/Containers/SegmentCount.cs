using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// How many segments a VDI in a pool has, beside the first: an attribute of its first object that its writer keeps, so
/// that others need not look at each object. Any thread; blocks it.
/// </summary>
/// <remarks>
/// It is for people. What was removed is counted with what is made next, or at the end; after a crash it may be wrong
/// by a few, until the VDI is collected.
/// </remarks>
internal sealed class SegmentCount(RadosPool pool, RadosName first, WriterLock? owner)
{
    private const int MaxUnnoted = 16;

    private readonly Lock _gate = new();
    private long? _count; // null until it was read
    private int _unnoted;

    /// <summary>The attribute.</summary>
    public static ReadOnlySpan<byte> Attribute => "segments\0"u8;

    /// <summary>How many there are; null when that is not known.</summary>
    public long? Read() => (long?)FencingNumber.Read(pool.GetAttribute(first, Attribute));

    /// <summary>Some were made. False when another process has taken the VDI over, or deleted it.</summary>
    public bool TryAdd(int count)
    {
        lock (_gate)
        {
            _count = Math.Max(0, (_count ?? Read() ?? 0) + count);
            return TryNote();
        }
    }

    /// <summary>One was removed.</summary>
    public void Remove()
    {
        if (owner is null) return;
        lock (_gate)
        {
            _count = Math.Max(0, (_count ?? ReadIfPossible() ?? 0) - 1);
            if (++_unnoted >= MaxUnnoted) NoteIfPossible();
        }
    }

    /// <summary>All were looked at.</summary>
    public void Correct(long count)
    {
        if (owner is null) return;
        lock (_gate)
        {
            _count = count;
            _unnoted++;
        }
    }

    /// <summary>Writes it down, if it is not yet.</summary>
    public void Note()
    {
        lock (_gate)
        {
            if (_unnoted > 0 && owner is { IsShutOut: false }) NoteIfPossible();
        }
    }

    /// <summary>Some were removed of a VDI that no process has open, unless one has opened it since.</summary>
    /// <param name="count">How many.</param>
    /// <param name="epoch">The epoch that the VDI had then.</param>
    public void Subtract(int count, ReadOnlySpan<byte> epoch)
    {
        if (ReadIfPossible() is not long known) return;
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, epoch)
            .SetAttribute(Attribute, FencingNumber.Format((ulong)Math.Max(0, known - count)));
        _ = pool.TryChange(first, write, isForced: true); // it is for people
    }

    private long? ReadIfPossible()
    {
        try
        {
            return Read();
        }
        catch (RadosException)
        {
            return null;
        }
    }

    private void NoteIfPossible()
    {
        try
        {
            _ = TryNote();
        }
        catch (RadosException)
        {
            // It is for people: what it is a part of goes on.
        }
    }

    private bool TryNote()
    {
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, owner!.Epoch)
            .SetAttribute(Attribute, FencingNumber.Format((ulong)_count!.Value));
        _unnoted = 0;
        int result = pool.TryChange(first, write, isForced: true);
        return result != -LinuxError.NoEntry && owner.IsTaken(result, first);
    }
}
