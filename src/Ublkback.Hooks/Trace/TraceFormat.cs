using System.Globalization;
using System.Text.Unicode;
using Ublkback.Block;

namespace Ublkback.Hooks.Trace;

/// <summary>Writes what a trace says into memory. Allocates nothing for a request.</summary>
internal abstract class TraceFormat
{
    /// <summary>Most bytes that anything takes.</summary>
    public const int MaxSize = 512;

    /// <summary>Writes what is added when a disk is opened; returns how many bytes.</summary>
    public virtual int WriteHead(Span<byte> to) => 0;

    /// <summary>Whether the data of a request follows its record.</summary>
    public virtual bool TakesData(in TraceRecord record) => false;

    /// <summary>The format of a name; only captures may have what was written.</summary>
    public static TraceFormat Find(string name, bool withData, ImageOpening opening) => name switch
    {
        "json" => new JsonFormat(opening),
        "binary" => new BinaryFormat(withData),
        _ => new TextFormat(opening),
    };

    /// <summary>Writes a request; returns how many bytes.</summary>
    public abstract int Write(in TraceRecord record, Span<byte> to);

    /// <summary>Writes that something happened to the disk; returns how many bytes.</summary>
    public abstract int Write(long microseconds, DiskEvent happened, Span<byte> to);

    /// <summary>
    /// Writes that so many records are missing, since the file could not take them; returns how many bytes.
    /// </summary>
    public abstract int WriteLost(long count, Span<byte> to);

    private sealed class TextFormat(ImageOpening opening) : TraceFormat
    {
        private readonly string _disk = $"dom{opening.Domid} {opening.Device}";

        public override int Write(in TraceRecord record, Span<byte> to)
        {
            Utf8.TryWrite(
                to, CultureInfo.InvariantCulture,
                $"{record.StartMicroseconds / 1e6:F6} {_disk} {record.Operation} "
                + $"{record.Sector}+{record.SectorCount} {record.Status} {record.LatencyMicroseconds}us "
                + $"{record.Checksum:x8}\n",
                out int written);
            return written;
        }

        public override int Write(long microseconds, DiskEvent happened, Span<byte> to)
        {
            Utf8.TryWrite(
                to, CultureInfo.InvariantCulture, $"{microseconds / 1e6:F6} {_disk} {happened}\n", out int written);
            return written;
        }

        public override int WriteLost(long count, Span<byte> to)
        {
            Utf8.TryWrite(to, CultureInfo.InvariantCulture, $"{count} requests are missing here\n", out int written);
            return written;
        }
    }

    private sealed class JsonFormat(ImageOpening opening) : TraceFormat
    {
        private readonly string _disk = string.Create(
            CultureInfo.InvariantCulture, $"\"domid\":{opening.Domid ?? -1},\"device\":\"{opening.Device}\"");

        public override int Write(in TraceRecord record, Span<byte> to)
        {
            Utf8.TryWrite(
                to, CultureInfo.InvariantCulture,
                $"{{\"us\":{record.StartMicroseconds},{_disk},\"op\":\"{record.Operation}\",\"sector\":{record.Sector},"
                + $"\"count\":{record.SectorCount},\"status\":\"{record.Status}\","
                + $"\"latency_us\":{record.LatencyMicroseconds},\"crc32c\":\"{record.Checksum:x8}\"}}\n",
                out int written);
            return written;
        }

        public override int Write(long microseconds, DiskEvent happened, Span<byte> to)
        {
            Utf8.TryWrite(
                to, CultureInfo.InvariantCulture, $"{{\"us\":{microseconds},{_disk},\"event\":\"{happened}\"}}\n",
                out int written);
            return written;
        }

        public override int WriteLost(long count, Span<byte> to)
        {
            Utf8.TryWrite(to, CultureInfo.InvariantCulture, $"{{{_disk},\"lost\":{count}}}\n", out int written);
            return written;
        }
    }

    private sealed class BinaryFormat(bool withData) : TraceFormat
    {
        public override int WriteHead(Span<byte> to)
        {
            TraceCapture.WriteHead(to, DateTimeOffset.UtcNow);
            return TraceCapture.HeadSize;
        }

        public override bool TakesData(in TraceRecord record) =>
            withData && record is { Operation: BlockOperation.Write, Status: BlockStatus.Okay };

        public override int Write(in TraceRecord record, Span<byte> to)
        {
            record.Write(to, TakesData(record) ? TraceRecordKind.RequestWithData : TraceRecordKind.Request);
            return TraceRecord.Size;
        }

        public override int Write(long microseconds, DiskEvent happened, Span<byte> to) => 0;

        public override int WriteLost(long count, Span<byte> to)
        {
            new TraceRecord { SectorCount = count }.Write(to, TraceRecordKind.Lost);
            return TraceRecord.Size;
        }
    }
}
