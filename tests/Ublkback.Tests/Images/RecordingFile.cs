using Ublkback.Block;

namespace Ublkback.Tests.Images;

/// <summary>A file in memory that remembers every change and every flush of it.</summary>
internal sealed class RecordingFile(byte[] content) : IBlockImage
{
    private readonly List<(long Offset, byte[]? Data, long Length)> _changes = []; // no data: a flush, or a new length
    private byte[] _now = [.. content];

    /// <summary>Changes up to now.</summary>
    public int Position => _changes.Count;

    public ImageGeometry Geometry { get; } = new(1 << 30, 512, 512, false);

    public string Identity => "recording";

    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        await BlockLoop.Current.DelayAsync(TimeSpan.Zero);
        int offset = (int)request.Sector * 512;
        lock (_changes) // files are made longer on helper threads
        {
            Do(request, offset);
        }

        return BlockStatus.Okay;
    }

    public ValueTask DisposeAsync() => default;

    /// <summary>What is there when the power is lost after a number of changes.</summary>
    public byte[] AfterPowerLoss(int position, Random random)
    {
        int flushed = position;
        while (flushed > 0 && _changes[flushed - 1] is not (-1, null, -1)) flushed--;
        byte[] survived =
            new byte[_changes.Take(position).Select(change => change.Length).Append(content.Length).Max()];
        content.CopyTo(survived, 0);
        long now = content.Length;
        for (int i = 0; i < position; i++)
        {
            (long offset, byte[]? data, long length) = _changes[i];
            if (length >= 0)
            {
                if (length < now) survived.AsSpan((int)length).Clear();
                now = length;
            }

            if (data is null) continue;
            double luck = random.NextDouble();
            for (int at = 0; at < data.Length; at += 512)
            {
                // Since the last flush: each sector may be there or not.
                if (i < flushed || random.NextDouble() < luck)
                    data.AsSpan(at, 512).CopyTo(survived.AsSpan((int)offset + at));
            }
        }

        return now == survived.Length ? survived : survived[..(int)now];
    }

    /// <summary>Its content now.</summary>
    public ReadOnlySpan<byte> Content => _now;

    /// <summary>Writes beside requests.</summary>
    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        if (offset + data.Length > _now.Length) SetLength(offset + data.Length);
        lock (_changes)
        {
            data.CopyTo(_now.AsSpan((int)offset));
            _changes.Add((offset, data.ToArray(), -1));
        }
    }

    /// <summary>Makes a hole.</summary>
    public BlockStatus Clear(long offset, int length)
    {
        lock (_changes)
        {
            _now.AsSpan((int)offset, length).Clear();
            _changes.Add((offset, new byte[length], -1));
        }

        return BlockStatus.Okay;
    }

    /// <summary>Makes it longer or shorter.</summary>
    public BlockStatus SetLength(long length)
    {
        lock (_changes)
        {
            Array.Resize(ref _now, (int)length);
            _changes.Add((-1, null, length));
        }

        return BlockStatus.Okay;
    }

    private void Do(BlockRequest request, int offset)
    {
        switch (request.Operation)
        {
            case BlockOperation.Read:
                _now.AsSpan(offset, request.Data.Length).CopyTo(request.Data.Span);
                break;
            case BlockOperation.Write:
                request.Data.Span.CopyTo(_now.AsSpan(offset));
                _changes.Add((offset, request.Data.ToArray(), -1));
                break;
            case BlockOperation.Flush:
                _changes.Add((-1, null, -1));
                break;
        }
    }
}
