using System.Runtime.InteropServices;
using NUnit.Framework;
using Ublkback.Blkif;

namespace Ublkback.Tests.Blkif;

/// <summary>Both ends of a fresh ring, and its journal, in memory that no object owns.</summary>
public abstract class RingFixture(string protocol, int order)
{
    private nint _memory;
    private nint _journal;

    protected BlkifAbi Abi { get; } = BlkifAbi.FromProtocol(protocol)!;

    protected FrontRing Front { get; private set; } = null!;

    protected BackRing Back { get; private set; } = null!;

    [SetUp]
    public unsafe void Make()
    {
        _memory = (nint)NativeMemory.AllocZeroed((nuint)(BlkifConstants.PageSize << order));
        _journal = (nint)NativeMemory.AllocZeroed((nuint)RingJournal.SizeOf(BlkifConstants.SlotCount(order)));
        Front = new FrontRing(_memory, order, Abi);
        Back = BackRing.Create(_memory, order, Abi, MakeJournal());
    }

    [TearDown]
    public unsafe void Free()
    {
        NativeMemory.Free((void*)_memory);
        NativeMemory.Free((void*)_journal);
    }

    /// <summary>Has a successor take over; false if it does not.</summary>
    protected bool TryRecover()
    {
        if (BackRing.Recover(_memory, order, Abi, MakeJournal()) is not BackRing successor) return false;
        Back = successor;
        return true;
    }

    protected unsafe Span<byte> Memory() => new((void*)_memory, BlkifConstants.PageSize << order);

    protected unsafe Span<byte> Journal() =>
        new((void*)_journal, (int)RingJournal.SizeOf(BlkifConstants.SlotCount(order)));

    private RingJournal MakeJournal() => new(_journal, BlkifConstants.SlotCount(order));
}
