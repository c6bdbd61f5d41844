using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Xen;

namespace Ublkback.Backend.Requests;

/// <summary>
/// One of a ring's preallocated request records: the copied slot and what has become of it. It is in exactly one place:
/// the ring's free records, waiting to start, below the image, or finished and waiting to be answered.
/// </summary>
[DataPath]
internal sealed class RingRequest : BlockRequest
{
    private static readonly BlockOperation[] ReadSteps = [BlockOperation.Read];
    private static readonly BlockOperation[] WriteSteps = [BlockOperation.Write];
    private static readonly BlockOperation[] FlushSteps = [BlockOperation.Flush];
    private static readonly BlockOperation[] FlushThenWriteSteps = [BlockOperation.Flush, BlockOperation.Write];
    private static readonly BlockOperation[] DiscardSteps = [BlockOperation.Discard];

    private static readonly BlockOperation[] BarrierSteps =
        [BlockOperation.Flush, BlockOperation.Write, BlockOperation.Flush];

    private readonly IRequestOwner _owner;
    private readonly ServedDisk _disk;
    private readonly Action _onCompleted;
    private ValueTaskAwaiter<BlockStatus> _awaiter;
    private BlockOperation[] _steps = ReadSteps;
    private int _step;

    public RingRequest(IRequestOwner owner, ServedDisk disk, int entry)
    {
        _owner = owner;
        _disk = disk;
        Entry = entry;
        _onCompleted = () => OnStepDone(_awaiter.GetResult()); // completed: the awaiter called
    }

    /// <summary>Its entry in the ring's journal.</summary>
    public int Entry { get; }

    /// <summary>The slot, as it was copied.</summary>
    public BlkifRequest Wire;

    /// <summary>The log of the vbd.</summary>
    public VbdLog Log => _disk.Log;

    /// <summary>True if an earlier daemon took it and left it unanswered.</summary>
    public bool IsRecovered { get; set; }

    /// <summary>When it was dequeued, in ticks of the stopwatch.</summary>
    public long StartedAt { get; set; }

    /// <summary>Number of segments, at most what was offered.</summary>
    public int SegmentCount { get; set; }

    /// <summary>For an indirect request, our copy of its page of segments.</summary>
    public Memory<byte> SegmentPage { get; set; }

    /// <summary>Number of the batch of copies that brings its page of segments.</summary>
    public int SegmentsCameWith { get; set; }

    /// <summary>Whether its segments and range are known and were checked.</summary>
    public bool IsChecked { get; set; }

    /// <summary>The geometry against which its range was checked, once <see cref="IsChecked"/>.</summary>
    public ImageGeometry? Geometry { get; set; }

    /// <summary>Whether the mapping of its pages has been tried.</summary>
    public bool IsMapped { get; set; }

    /// <summary>First sector of the range.</summary>
    public ulong First => Wire.Sector;

    /// <summary>Length of the range in sectors; 0 for a request without data.</summary>
    public long Length { get; set; }

    /// <summary>Bytes of data that travel between guest and image.</summary>
    public int ByteCount => Wire.Operation == BlkifOperation.Discard ? 0 : (int)(Length * SectorSize);

    /// <summary>The data, a private copy; empty when there is none.</summary>
    public Memory<byte> Buffer { get; set; }

    /// <summary>Whether the guest made it wrong, so that it never reaches the image.</summary>
    public bool IsRefused { get; set; }

    /// <summary>Whether data or segments could not be carried from or to the guest.</summary>
    public bool HasFailedCopy { get; set; }

    /// <summary>Place among the requests below the image, kept by <see cref="RequestOrder"/>.</summary>
    public int RunningIndex { get; set; }

    /// <summary>How it ended, once it has.</summary>
    public BlkifStatus Status { get; set; }

    /// <summary>What it counts as in the statistics.</summary>
    public BlockOperation CountedAs => Wire.InnerOperation switch
    {
        BlkifOperation.Read => BlockOperation.Read,
        BlkifOperation.Discard => BlockOperation.Discard,
        _ => Length > 0 ? BlockOperation.Write : BlockOperation.Flush,
    };

    /// <summary>The segments, of which the range checks have passed if <see cref="IsChecked"/>.</summary>
    public ReadOnlySpan<BlkifSegment> Segments => SegmentPage.IsEmpty
        ? ((ReadOnlySpan<BlkifSegment>)Wire.Segments)[..SegmentCount]
        : MemoryMarshal.Cast<byte, BlkifSegment>(SegmentPage.Span)[..SegmentCount];

    /// <summary>Makes the record fit for the request that was just copied into <see cref="Wire"/>.</summary>
    public void Reset(long now)
    {
        Debug.Assert(StartedAt == 0, "the record of a request in flight is used for another");
        StartedAt = now;
        SegmentCount = 0;
        Length = 0;
        IsChecked = false;
        IsMapped = false;
        IsRefused = false;
        HasFailedCopy = false;
    }

    /// <summary>A copy from or to the guest failed.</summary>
    public void FailCopy(in GrantCopy copy)
    {
        HasFailedCopy = true;
        Log.FailedCopy(
            Wire, copy.Flags == GrantCopy.SourceIsGrant ? copy.SourceReference : copy.DestinationReference,
            copy.Status);
    }

    /// <summary>
    /// Hands the request to the image, step by step: a flush with data is a flush, then a write; a barrier is that and
    /// another flush. The owner learns of the end, perhaps before this returns.
    /// </summary>
    public void Start()
    {
        Debug.Assert(StartedAt != 0 && IsChecked && !IsRefused, "a request starts that was not admitted");
        _steps = Wire.InnerOperation switch
        {
            BlkifOperation.Read => ReadSteps,
            BlkifOperation.Write => WriteSteps,
            BlkifOperation.Discard => DiscardSteps,
            _ when Length == 0 => FlushSteps,
            BlkifOperation.WriteBarrier => BarrierSteps,
            _ => FlushThenWriteSteps,
        };
        _step = 0;
        StartStep();
    }

    private void StartStep()
    {
        Operation = _steps[_step];
        bool isFlush = Operation == BlockOperation.Flush;
        Sector = isFlush ? 0 : First;
        SectorCount = isFlush ? 0 : Length;
        Data = isFlush ? default : Buffer;
        if (isFlush && _disk.HasLostWrites)
        {
            OnStepDone(BlockStatus.IoError);
            return;
        }

        RequestPromise.Assert(this, Geometry!);
#pragma warning disable CA2012 // awaited once, by hand: an async method per request would need a box per request
        _awaiter = _disk.Image.HandleAsync(this).GetAwaiter();
#pragma warning restore CA2012
        if (_awaiter.IsCompleted) OnStepDone(_awaiter.GetResult()); // completed: tested on this line
        else _awaiter.UnsafeOnCompleted(_onCompleted);
    }

    private void OnStepDone(BlockStatus status)
    {
        if (status != BlockStatus.Okay && _steps[_step] == BlockOperation.Flush) _owner.OnFlushFailed();
        _step++;
        if (status == BlockStatus.Okay && _step < _steps.Length) StartStep();
        else _owner.OnHandled(this, status);
    }
}
