using System.Diagnostics;
using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Hooks.Trace;

/// <summary>
/// <c>trace(file=PATH,format=text|json|binary,data=yes)</c>: writes down every request when it has ended, with its
/// time, latency, status and a checksum of its data; with <c>data=yes</c>, what was written too. <c>ublkback replay</c>
/// plays a binary trace against any target.
/// </summary>
internal sealed class TraceHook : BlockHook
{
    private readonly TraceFile _file;
    private readonly long _openedAt = Stopwatch.GetTimestamp();

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The file cannot be written.</exception>
    public TraceHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("file", "format", "data");
        string name = target.GetChoice("format", "text", "json", "binary");
        bool withData = target.GetChoice("data", "no", "yes") == "yes";
        if (withData && name != "binary") throw new TargetException("data=yes needs format=binary");
        TraceFormat format = TraceFormat.Find(name, withData, opening);
        string path = target.Get("file")
            ?? throw new TargetException("it has no file", "write trace(file=/var/log/disk.trace)");
        if (!Path.IsPathRooted(path)) throw new TargetException($"file={path} is not an absolute path");
        _file = new TraceFile(path, format, opening.Warn);
    }

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        long start = Stopwatch.GetTimestamp();
        BlockStatus status = await next.HandleAsync(request);
        uint checksum = request.Data.IsEmpty || status != BlockStatus.Okay ? 0 : Crc32C.Of(request.Data.Span);
        long latency = Microseconds(Stopwatch.GetTimestamp() - start);
        _file.Add(new TraceRecord(
            Microseconds(start - _openedAt), latency, request.Operation, status, request.Sector, request.SectorCount,
            checksum),
            request.Data.Span);
        return status;
    }

    /// <inheritdoc/>
    public override void OnEvent(DiskEvent happened) =>
        _file.Add(Microseconds(Stopwatch.GetTimestamp() - _openedAt), happened);

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        await _file.DisposeAsync().ConfigureAwait(false);
        await base.DisposeAsync().ConfigureAwait(false);
    }

    private static long Microseconds(long ticks) => ticks / (Stopwatch.Frequency / 1_000_000);
}
