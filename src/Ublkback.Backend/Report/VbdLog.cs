using System.Globalization;
using Microsoft.Extensions.Logging;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend.Report;

/// <summary>
/// The log of one vbd: one line an event, with domid and device. What a guest can trigger is limited. Any thread.
/// </summary>
internal sealed partial class VbdLog(ILogger logger, VbdAddress address)
{
    private readonly LogLimiter _limiter = new(TimeProvider.System);
    // a guest may connect and disconnect without end
    private readonly LogLimiter _reconnects = new(TimeProvider.System);
    private readonly string _vbd = address.ToString();

    internal void Found(string target) => Found(logger, _vbd, target);

    internal void Gone() => Gone(logger, _vbd);

    internal void ImageOpened(string target, ulong mebibytes, string access) =>
        ImageOpened(logger, _vbd, target, mebibytes, access);

    internal void ImageRefused(string reason) => ImageRefused(logger, _vbd, reason);

    internal void Connected(FrontendParameters frontend)
    {
        if (!_reconnects.TryPass(out _)) return;
        int slots = BlkifConstants.SlotCount(frontend.RingPageOrder);
        string grants = frontend.IsPersistent ? "persistent" : "no persistent";
        Connected(logger, _vbd, frontend.Queues.Count, slots, frontend.Abi.Protocol, grants);
    }

    internal void Attached(int queues) => Attached(logger, _vbd, queues);

    internal void Resized(ulong mebibytes) => Resized(logger, _vbd, mebibytes);

    internal void Detached() => Detached(logger, _vbd);

    internal void Disconnected()
    {
        if (_reconnects.TryPass(out _)) Disconnected(logger, _vbd);
    }

    internal void Held(BlockStatus status) =>
        Limited(
            $"requests are held ({(status == BlockStatus.NoSpace ? "the storage is full" : "the storage failed")}) "
            + "and the guest waits: mend it, then run 'ublkback resume'");

    internal void EmulatorToldOf(string text) => Limited($"QEMU's view of the disk: {text}");

    internal void EmulatorShutOut(string reason) =>
        Limited($"QEMU cannot be shown the disk, so the guest cannot boot from it: {reason}");

    internal void LetGo() =>
        Limited("the storage has not answered for 5 s; the guest's rings are let go of, the image when it answers");

    internal void Stuck() =>
        Limited("its worker is blocked, so the guest's rings stay mapped until it goes on or the daemon ends");

    internal void Changed() => Changed(logger, _vbd);

    internal void StillOpen(string target, TimeSpan waited) => Limited(string.Create(
        CultureInfo.InvariantCulture,
        $"{target} is still open, since its storage has not answered for {waited.TotalSeconds:F0} s; it is closed when "
            + $"the storage answers"));

    internal void NotReleased(string reason) =>
        Limited($"a part of the disk was not released, and stays until the daemon ends: {reason}");

    internal void NotTakenOver(string reason) => NotTakenOver(logger, _vbd, reason);

    internal void TakeOverDelayed(string reason) => Limited($"cannot be taken over yet, the guest waits: {reason}");

    internal void StartedAnew(string reason) => Limited(
        $"{reason}: the frontend started again while no daemon ran, and its earlier requests are dropped");

    internal void Quarantined(in BlkifRequest request) =>
        Quarantined(logger, _vbd, request.Operation, request.SegmentCount, request.Sector);

    internal void ReleasedFromKernel() => ReleasedFromKernel(logger, _vbd);

    internal void ConnectFailed(string reason)
    {
        if (_reconnects.TryPass(out _)) ConnectFailed(logger, _vbd, reason);
    }

    internal void StoreFailed(string reason) => StoreFailed(logger, _vbd, reason);

    internal void OddFrontendState(string state) => Limited($"the frontend's state is {state}, which is none");

    internal void Refused(in BlkifRequest request, RequestFault fault)
    {
        if (Passes(out int more))
            Limited(
                logger, _vbd,
                $"refused {request.Operation} of {request.SegmentCount} segments at sector {request.Sector}: {fault}",
                LeftOut(more));
    }

    internal void FailedCopy(in BlkifRequest request, uint gref, short status)
    {
        if (Passes(out int more))
            Limited(
                logger, _vbd,
                $"{request.Operation} at sector {request.Sector}: grant reference {gref} cannot be copied (status "
                + $"{status})", LeftOut(more));
    }

    internal void FailedCopyBatch(string reason) => Limited($"grant copies failed: {reason}");

    internal void BrokenRing() =>
        Limited("the frontend claims more requests than its ring holds; the ring is not served any more");

    /// <summary>An I/O error of the image, with its cause.</summary>
    internal void ImageFailed(string reason) => Limited(reason);

    private void Limited(string what)
    {
        if (Passes(out int more)) Limited(logger, _vbd, what, LeftOut(more));
    }

    private static string LeftOut(int more) => more == 0 ? "" : $" ({more} such lines left out before)";

    private bool Passes(out int more) => _limiter.TryPass(out more);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: found, target {Target}")]
    private static partial void Found(ILogger logger, string vbd, string target);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: the toolstack changed the device")]
    private static partial void Changed(ILogger logger, string vbd);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: gone")]
    private static partial void Gone(ILogger logger, string vbd);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: opened {Target}, {Mebibytes} MiB, {Access}")]
    private static partial void ImageOpened(ILogger logger, string vbd, string target, ulong mebibytes, string access);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Vbd}: {Reason}")]
    private static partial void ImageRefused(ILogger logger, string vbd, string reason);

    [LoggerMessage(Level = LogLevel.Information,
        Message = "{Vbd}: connected, {Queues} queue(s) of {Slots} slots, {Protocol}, {Persistent} grants")]
    private static partial void Connected(
        ILogger logger, string vbd, int queues, int slots, string protocol, string persistent);

    [LoggerMessage(
        Level = LogLevel.Information, Message = "{Vbd}: taken over from the daemon before, {Queues} queue(s)")]
    private static partial void Attached(ILogger logger, string vbd, int queues);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: has another size now, {Mebibytes} MiB")]
    private static partial void Resized(ILogger logger, string vbd, ulong mebibytes);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: detached for the next daemon")]
    private static partial void Detached(ILogger logger, string vbd);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: disconnected")]
    private static partial void Disconnected(ILogger logger, string vbd);

    [LoggerMessage(Level = LogLevel.Error,
        Message = "{Vbd}: connected to an earlier daemon and cannot be taken over: {Reason}; the disk stays as it "
            + "is: mend that and restart the daemon, or detach the disk")]
    private static partial void NotTakenOver(ILogger logger, string vbd, string reason);

    [LoggerMessage(Level = LogLevel.Critical,
        Message = "{Vbd}: quarantined, since daemons have died of a request again and again ({Operation} of "
            + "{Segments} segments at sector {Sector}): it and all others of this disk are answered with an error "
            + "until the disk is attached again or the daemon restarted; please report this")]
    private static partial void Quarantined(
        ILogger logger, string vbd, BlkifOperation operation, byte segments, ulong sector);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Vbd}: released from the kernel's xen-blkback")]
    private static partial void ReleasedFromKernel(ILogger logger, string vbd);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Vbd}: {Reason}")]
    private static partial void ConnectFailed(ILogger logger, string vbd, string reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Vbd}: {Reason}; will look again when the store changes")]
    private static partial void StoreFailed(ILogger logger, string vbd, string reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Vbd}: {What}{LeftOut}")]
    private static partial void Limited(ILogger logger, string vbd, string what, string leftOut);
}
