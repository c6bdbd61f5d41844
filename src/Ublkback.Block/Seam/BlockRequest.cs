namespace Ublkback.Block;

/// <summary>One request on its way from a ring to an image.</summary>
/// <remarks>
/// The consumer of a ring owns its requests and recycles them. The request belongs to an image from the call until its
/// result is there. It is used on one worker only and is valid everywhere: the range lies inside the image and the data
/// has the length of the range.
/// </remarks>
public class BlockRequest
{
    /// <summary>Bytes in a sector: the unit of all ranges, whatever the sector size of the image (blkif.h).</summary>
    public const int SectorSize = 512;

    private SeamCall?[] _calls = [];

    /// <summary>What is asked.</summary>
    public BlockOperation Operation { get; set; }

    /// <summary>First sector of the range, in units of 512 bytes.</summary>
    public ulong Sector { get; set; }

    /// <summary>Length of the range in sectors of 512 bytes; 0 for a flush.</summary>
    public long SectorCount { get; set; }

    /// <summary>
    /// The data of a read or write, <see cref="SectorCount"/> × 512 bytes in one piece. It is a private copy of the
    /// guest's, so nothing changes it meanwhile; it starts on a page boundary and never moves, so it may be the target
    /// of direct I/O.
    /// </summary>
    public Memory<byte> Data { get; set; }

    /// <summary>The seam of a pipeline that it has passed last, from 1 at the top; 0 when none.</summary>
    internal int Depth { get; set; }

    /// <summary>Its stay below the seam of a depth, from 1.</summary>
    internal SeamCall CallAt(int depth)
    {
        if (_calls.Length < depth) Array.Resize(ref _calls, depth);
        return _calls[depth - 1] ??= new SeamCall(this);
    }
}
