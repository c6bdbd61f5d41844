using System.Buffers.Binary;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// The log of all that was written to a node of QEMU's (<c>blklogwrites</c>, the format of the kernel's dm-log-writes),
/// and what it was written to.
/// </summary>
internal sealed class WriteLog : IDisposable
{
    private const int SectorSize = 512;
    private const long FlushFlag = 1;
    private const long DiscardFlag = 4;

    private readonly FileStream _log;
    private readonly FileStream _image;
    private long _at = SectorSize; // behind the superblock

    /// <summary>Opens it.</summary>
    /// <param name="log">Its path.</param>
    /// <param name="image">The path of what the node had before the first write; it becomes what <see cref="ReplayTo"/>
    /// makes of it.</param>
    public WriteLog(string log, string image)
    {
        _log = new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        _image = new FileStream(image, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
    }

    /// <summary>Where its flushes begin and end, in order.</summary>
    public IReadOnlyList<(long Begin, long End)> FindFlushes()
    {
        List<(long, long)> flushes = [];
        for (long at = SectorSize; at < _log.Length;)
        {
            (_, _, long flags, long next) = ReadEntry(at);
            if ((flags & FlushFlag) != 0) flushes.Add((at, next));
            at = next;
        }

        return flushes;
    }

    /// <summary>Does to the image what was written until then.</summary>
    public void ReplayTo(long position)
    {
        while (_at < position)
        {
            (long sector, long count, long flags, long next) = ReadEntry(_at);
            if ((flags & DiscardFlag) == 0 && count > 0)
            {
                byte[] data = new byte[count * SectorSize];
                _log.Position = _at + SectorSize;
                _log.ReadExactly(data);
                _image.Position = sector * SectorSize;
                _image.Write(data);
            }

            _at = next;
        }

        _image.Flush();
    }

    public void Dispose()
    {
        _log.Dispose();
        _image.Dispose();
    }

    private (long Sector, long Count, long Flags, long Next) ReadEntry(long at)
    {
        byte[] entry = new byte[SectorSize];
        _log.Position = at;
        _log.ReadExactly(entry);
        long sector = BinaryPrimitives.ReadInt64LittleEndian(
            entry), count = BinaryPrimitives.ReadInt64LittleEndian(entry.AsSpan(8));
        long flags = BinaryPrimitives.ReadInt64LittleEndian(entry.AsSpan(16));
        return (sector, count, flags, at + SectorSize + ((flags & DiscardFlag) == 0 ? count * SectorSize : 0));
    }
}
