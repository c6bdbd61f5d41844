using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;

namespace Ublkback.Hooks.Trace;

/// <summary>
/// A binary trace as a file. A head for each time that the disk was opened (8 bytes: the kind of file, and the version
/// of its format in the last; 8 bytes: microseconds since 1970, little-endian), then records of
/// <see cref="TraceRecord.Size"/>, some followed by data.
/// </summary>
public sealed class TraceCapture : IDisposable
{
    /// <summary>Bytes of a head.</summary>
    public const int HeadSize = 16;

    private const int ScanSize = 1 << 16;

    private readonly SafeFileHandle _file;

    private TraceCapture(SafeFileHandle file, IReadOnlyList<Entry> requests, long lost, bool isDamaged)
    {
        _file = file;
        Requests = requests;
        Lost = lost;
        IsDamaged = isDamaged;
    }

    /// <summary>What a head begins with.</summary>
    public static ReadOnlySpan<byte> Magic => "UBLKTRC\u0001"u8;

    /// <summary>The requests, in the order in which they ended.</summary>
    public IReadOnlyList<Entry> Requests { get; }

    /// <summary>Requests that the trace could not take.</summary>
    public long Lost { get; }

    /// <summary>
    /// Whether a part of the file makes no sense, as after a daemon's death in the middle of a record.
    /// </summary>
    public bool IsDamaged { get; }

    /// <summary>Opens a capture and reads all of it but the data.</summary>
    /// <exception cref="InvalidDataException">It is none.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static TraceCapture Open(string path)
    {
        SafeFileHandle file = File.OpenHandle(path);
        try
        {
            return Read(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Reads the data that a request wrote.</summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    public async ValueTask ReadDataAsync(Entry entry, Memory<byte> data)
    {
        if (await RandomAccess.ReadAsync(_file, data, entry.DataOffset).ConfigureAwait(true) != data.Length)
            throw new EndOfStreamException("the capture was cut short meanwhile");
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    /// <summary>Writes a head.</summary>
    internal static void WriteHead(Span<byte> to, DateTimeOffset now)
    {
        Magic.CopyTo(to);
        BinaryPrimitives.WriteInt64LittleEndian(
            to[Magic.Length..], (now - DateTimeOffset.UnixEpoch).Ticks / TimeSpan.TicksPerMicrosecond);
    }

    private static TraceCapture Read(SafeFileHandle file)
    {
        byte[] bytes = new byte[TraceRecord.Size];
        List<Entry> requests = [];
        long lost = 0, length = RandomAccess.GetLength(file), rescanFrom = 0;
        int opening = -1;
        bool isDamaged = false;
        for (long at = 0; at < length;)
        {
            int read = RandomAccess.Read(file, bytes, at);
            if (read >= HeadSize && bytes.AsSpan().StartsWith(Magic))
            {
                opening++;
                at += HeadSize;
                rescanFrom = at;
                continue;
            }

            if (opening < 0)
                throw new InvalidDataException(
                    "it is no capture of this version: make one with trace(file=…,format=binary)");
            if (read == TraceRecord.Size && TraceRecord.TryRead(bytes, out TraceRecord record, out TraceRecordKind kind)
                && at + TraceRecord.Size + DataSize(record, kind) is long next && next <= length)
            {
                if (kind == TraceRecordKind.Lost) lost += record.SectorCount;
                else
                    requests.Add(new Entry(
                        record, opening, kind == TraceRecordKind.RequestWithData ? at + TraceRecord.Size : -1));
                rescanFrom = at + TraceRecord.Size;
                at = next;
                continue;
            }

            // The data of the last request may have been cut off, and a head been taken for data.
            isDamaged = true;
            if (requests.Count > 0 && requests[^1].DataOffset == rescanFrom) requests.RemoveAt(requests.Count - 1);
            at = FindHead(file, rescanFrom, length);
            rescanFrom = at;
        }

        return new TraceCapture(file, requests, lost, isDamaged);
    }

    private static long DataSize(in TraceRecord record, TraceRecordKind kind)
    {
        if (kind != TraceRecordKind.RequestWithData) return 0;
        return record.SectorCount <= int.MaxValue / BlockRequest.SectorSize
            ? record.SectorCount * BlockRequest.SectorSize
            : long.MaxValue / 2;
    }

    private static long FindHead(SafeFileHandle file, long from, long length)
    {
        byte[] window = new byte[ScanSize];
        for (long at = from; at < length; at += ScanSize - Magic.Length)
        {
            int read = RandomAccess.Read(file, window, at);
            int found = window.AsSpan(0, read).IndexOf(Magic);
            if (found >= 0) return at + found;
        }

        return length;
    }

    /// <summary>A request of a capture.</summary>
    /// <param name="Record">What it was.</param>
    /// <param name="Opening">The opening of the disk that its time counts from, from 0.</param>
    /// <param name="DataOffset">Where the data is that it wrote; negative when the capture has none.</param>
    public readonly record struct Entry(TraceRecord Record, int Opening, long DataOffset)
    {
        /// <summary>Whether the capture has what it wrote.</summary>
        public bool HasData => DataOffset >= 0;
    }
}
