using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>
/// What a backend has in hand of one ring, in memory that outlives its process, so that a successor answers each
/// request exactly once. One thread at a time.
/// </summary>
/// <remarks>
/// An entry holds the copied slot of one request, and a word that says what has become of it: <c>pending</c>, or the
/// number of its response. It is free again once that many responses are published, so each step is one aligned store,
/// and the process may die between any two:
/// <code>
/// take       the slot is copied; word = pending            from here on the request is consumed
/// answer     status; word = number of the response
/// publish    responses written into the ring; Intended; rsp_prod in the ring; Published
/// </code>
/// Stores of one process are seen in their order by the next, whatever ended it; only a dead machine loses them, and
/// the guest with it. Counters have 64 bits, so that a word never comes round again.
/// </remarks>
[DataPath]
public sealed unsafe class RingJournal(nint address, int slotCount)
{
    private const ulong Pending = ulong.MaxValue;
    private const int HeaderSize = 64;
    private const int EntrySize = 128; // 16 bytes, and the larger of the layouts, 112
    private const int IntendedOffset = 8;
    private const int RequestIndexOffset = 8; // of an entry, whose word is at 0
    private const int AttemptsOffset = 12;
    private const int StatusOffset = 14;
    private const int SlotOffset = 16;

    private readonly byte* _base = (byte*)address;

    /// <summary>Entries, as many as the ring has slots.</summary>
    public int SlotCount => slotCount;

    /// <summary>Responses that the guest has been shown.</summary>
    internal ulong Published
    {
        get => Volatile.Read(ref *(ulong*)_base);
        set => Volatile.Write(ref *(ulong*)_base, value);
    }

    /// <summary>Responses that the guest was about to be shown.</summary>
    internal ulong Intended
    {
        get => Volatile.Read(ref *(ulong*)(_base + IntendedOffset));
        set => Volatile.Write(ref *(ulong*)(_base + IntendedOffset), value);
    }

    /// <summary>Bytes that the journal of a ring takes.</summary>
    public static long SizeOf(int slotCount) => HeaderSize + ((long)slotCount * EntrySize);

    /// <summary>Makes it the journal of a fresh ring.</summary>
    internal void Clear() => Unsafe.InitBlockUnaligned(_base, 0, (uint)SizeOf(slotCount));

    /// <summary>Whether an entry holds a request that was not answered.</summary>
    internal bool IsPending(int entry) => Word(entry) == Pending;

    /// <summary>Whether an entry holds an answer that the guest may not have been shown.</summary>
    internal bool IsAnswered(int entry) => Word(entry) != Pending && Word(entry) > Published;

    /// <summary>The copied slot of an entry.</summary>
    internal byte* Slot(int entry) => Entry(entry) + SlotOffset;

    /// <summary>The place in the ring from which the request of an entry was taken.</summary>
    internal uint RequestIndex(int entry) => *(uint*)(Entry(entry) + RequestIndexOffset);

    /// <summary>The answer in an entry.</summary>
    internal BlkifStatus Status(int entry) => (BlkifStatus)(*(short*)(Entry(entry) + StatusOffset));

    /// <summary>How many processes have had the request of an entry in hand.</summary>
    internal ref ushort Attempts(int entry) => ref *(ushort*)(Entry(entry) + AttemptsOffset);

    /// <summary>The request whose slot was copied into an entry is consumed.</summary>
    internal void Take(int entry, uint requestIndex)
    {
        *(uint*)(Entry(entry) + RequestIndexOffset) = requestIndex;
        Attempts(entry) = 1;
        KillPoint.Reach(nameof(Take));
        Volatile.Write(ref Word(entry), Pending);
        KillPoint.Reach("Taken");
    }

    /// <summary>The request of an entry is answered; the response is the given one, counted from 1.</summary>
    internal void Answer(int entry, ulong response, BlkifStatus status)
    {
        *(short*)(Entry(entry) + StatusOffset) = (short)status;
        KillPoint.Reach(nameof(Answer));
        Volatile.Write(ref Word(entry), response);
        KillPoint.Reach("Answered");
    }

    private byte* Entry(int entry) => _base + HeaderSize + ((long)entry * EntrySize);

    private ref ulong Word(int entry) => ref *(ulong*)Entry(entry);
}
