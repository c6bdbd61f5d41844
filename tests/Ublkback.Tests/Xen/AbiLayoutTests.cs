using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using NUnit.Framework;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Linux.Kernel;
using Ublkback.Tests.House;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Tests.Xen;

/// <summary>Compares our numbers with what native/abi-layout.c prints from Xen's and the kernel's headers.</summary>
public sealed class AbiLayoutTests
{
    private static readonly Dictionary<string, long> Headers = Build();

    private static IEnumerable<TestCaseData> Ours()
    {
        foreach ((string name, long value) in Rings().Concat(Devices()).Concat(Store()).Concat(Uring()))
            yield return new TestCaseData(name, value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Ours))]
    public void Agrees_with_the_headers(string name, long value) =>
        Assert.That(value, Is.EqualTo(Headers[name]), name);

    [Test]
    public void Leaves_out_nothing_that_matters()
    {
        // What the C program prints and C# has no name for: fields that are read through these, in order.
        string[] withoutName =
        [
            "ring.req_prod", "ring.req_event", "ring.rsp_prod", "ring.rsp_event", "x86_64.response.size",
            "gntdev.map.refs", "segment.first", "segment.last", "copy.source_gref", "copy.dest_gref",
        ];
        IEnumerable<string> checkedNames = Ours().Select(data => (string)data.Arguments[0]!);

        Assert.That(Headers.Keys.Except(checkedNames).Except(withoutName), Is.Empty);
    }

    private static IEnumerable<(string, long)> Rings()
    {
        yield return ("ring.slots", BlkifConstants.RingHeaderSize);
        yield return ("ring.count.1", BlkifConstants.SlotCount(0));
        yield return ("ring.count.16", BlkifConstants.SlotCount(4));
        foreach ((string name, BlkifAbi abi) in new[] { ("x86_64", BlkifAbi.X86_64), ("x86_32", BlkifAbi.X86_32) })
        {
            yield return ($"{name}.stride", abi.RequestSize);
            yield return ($"{name}.request.id", abi.IdOffset);
            yield return ($"{name}.request.sector", abi.SectorOffset);
            yield return ($"{name}.request.segments", abi.SegmentsOffset);
            yield return ($"{name}.discard.id", abi.IdOffset);
            yield return ($"{name}.discard.count", abi.DiscardCountOffset);
            yield return ($"{name}.indirect.id", abi.IdOffset);
            yield return ($"{name}.indirect.count", BlkifAbi.HandleOffset);
            yield return ($"{name}.indirect.grefs", abi.DescriptorsOffset);
            yield return ($"{name}.response.size", abi.ResponseSize);
            yield return ($"{name}.response.operation", BlkifAbi.ResponseOperationOffset);
            yield return ($"{name}.response.status", BlkifAbi.ResponseStatusOffset);
        }

        yield return ("x86_64.request.operation", BlkifAbi.OperationOffset);
        yield return ("x86_64.request.nr_segments", BlkifAbi.SegmentCountOffset);
        yield return ("x86_64.request.handle", BlkifAbi.HandleOffset);
        yield return ("x86_64.discard.flag", BlkifAbi.SegmentCountOffset);
        yield return ("x86_64.indirect.operation", BlkifAbi.SegmentCountOffset);
        yield return ("segment.size", BlkifAbi.SegmentSize);
        yield return ("segment.max", BlkifConstants.MaxDirectSegments);
        yield return ("op.read", (long)BlkifOperation.Read);
        yield return ("op.write", (long)BlkifOperation.Write);
        yield return ("op.barrier", (long)BlkifOperation.WriteBarrier);
        yield return ("op.flush", (long)BlkifOperation.FlushDiskCache);
        yield return ("op.discard", (long)BlkifOperation.Discard);
        yield return ("op.indirect", (long)BlkifOperation.Indirect);
        yield return ("rsp.okay", (long)BlkifStatus.Okay);
        yield return ("rsp.error", (long)BlkifStatus.Error);
        yield return ("rsp.eopnotsupp", (long)BlkifStatus.NotSupported);
        foreach (XenbusState state in Enum.GetValues<XenbusState>().Where(state => state != XenbusState.Unknown))
            yield return ($"xenbus.{state.ToString().ToLowerInvariant()}", (long)state);
    }

    private static IEnumerable<(string, long)> Devices()
    {
        yield return ("gntdev.map", GrantIoctl.MapNumber);
        yield return ("gntdev.map.count", Offset<GrantIoctl.Map>(nameof(GrantIoctl.Map.Count)));
        yield return ("gntdev.map.index", Offset<GrantIoctl.Map>(nameof(GrantIoctl.Map.Index)));
        yield return ("gntdev.ref.size", Marshal.SizeOf<GrantIoctl.Reference>());
        yield return ("gntdev.unmap", GrantIoctl.UnmapNumber);
        yield return ("gntdev.unmap.index", Offset<GrantIoctl.Unmap>(nameof(GrantIoctl.Unmap.Index)));
        yield return ("gntdev.unmap.count", Offset<GrantIoctl.Unmap>(nameof(GrantIoctl.Unmap.Count)));
        yield return ("gntdev.copy", GrantIoctl.CopyNumber);
        yield return ("gntdev.copy.count", Offset<GrantIoctl.Copy>(nameof(GrantIoctl.Copy.Count)));
        yield return ("gntdev.copy.segments", Offset<GrantIoctl.Copy>(nameof(GrantIoctl.Copy.Segments)));
        yield return ("copy.size", Marshal.SizeOf<GrantCopy>());
        yield return ("copy.source.ref", Offset<GrantCopy>(nameof(GrantCopy.SourceReference)));
        yield return ("copy.source.offset", Offset<GrantCopy>(nameof(GrantCopy.SourceOffset)));
        yield return ("copy.source.domid", Offset<GrantCopy>(nameof(GrantCopy.SourceDomid)));
        yield return ("copy.dest.virt", Offset<GrantCopy>(nameof(GrantCopy.DestinationAddress)));
        yield return ("copy.dest.offset", Offset<GrantCopy>(nameof(GrantCopy.DestinationOffset)));
        yield return ("copy.dest.domid", Offset<GrantCopy>(nameof(GrantCopy.DestinationDomid)));
        yield return ("copy.len", Offset<GrantCopy>(nameof(GrantCopy.Length)));
        yield return ("copy.flags", Offset<GrantCopy>(nameof(GrantCopy.Flags)));
        yield return ("copy.status", Offset<GrantCopy>(nameof(GrantCopy.Status)));
        yield return ("copy.okay", GrantCopy.Okay);
        yield return ("copy.general_error", GrantCopy.GeneralError);
        yield return ("copy.bad_gntref", GrantCopy.BadReference);
        yield return ("copy.permission_denied", GrantCopy.PermissionDenied);
        yield return ("evtchn.bind", EventIoctl.BindInterdomainNumber);
        yield return (
            "evtchn.bind.domain", Offset<EventIoctl.BindInterdomain>(nameof(EventIoctl.BindInterdomain.RemoteDomid)));
        yield return (
            "evtchn.bind.port", Offset<EventIoctl.BindInterdomain>(nameof(EventIoctl.BindInterdomain.RemotePort)));
        yield return ("evtchn.unbind", EventIoctl.UnbindNumber);
        yield return ("evtchn.notify", EventIoctl.NotifyNumber);
    }

    private static IEnumerable<(string, long)> Store()
    {
        yield return ("xs.header", XenStoreHeader.Size);
        yield return ("xs.payload_max", XenStoreHeader.MaxPayload);
        yield return ("xs.abs_path_max", XenStoreHeader.MaxAbsolutePath);
        (string, XenStoreMessageType)[] types =
        [
            ("directory", XenStoreMessageType.Directory), ("read", XenStoreMessageType.Read),
            ("get_perms", XenStoreMessageType.GetPermissions), ("watch", XenStoreMessageType.Watch),
            ("unwatch", XenStoreMessageType.Unwatch), ("transaction_start", XenStoreMessageType.TransactionStart),
            ("transaction_end", XenStoreMessageType.TransactionEnd), ("introduce", XenStoreMessageType.Introduce),
            ("release", XenStoreMessageType.Release), ("get_domain_path", XenStoreMessageType.GetDomainPath),
            ("write", XenStoreMessageType.Write), ("mkdir", XenStoreMessageType.MakeDirectory),
            ("rm", XenStoreMessageType.Remove), ("set_perms", XenStoreMessageType.SetPermissions),
            ("watch_event", XenStoreMessageType.WatchEvent), ("error", XenStoreMessageType.Error),
            ("is_domain_introduced", XenStoreMessageType.IsDomainIntroduced),
            ("directory_part", XenStoreMessageType.DirectoryPart), ("reset_watches", XenStoreMessageType.ResetWatches),
        ];
        foreach ((string name, XenStoreMessageType type) in types) yield return ($"xs.{name}", (long)type);
    }

    private static IEnumerable<(string, long)> Uring()
    {
        yield return ("sqe.size", Marshal.SizeOf<SubmissionEntry>());
        yield return ("sqe.fd", Offset<SubmissionEntry>(nameof(SubmissionEntry.Descriptor)));
        yield return ("sqe.off", Offset<SubmissionEntry>(nameof(SubmissionEntry.Offset)));
        yield return ("sqe.addr", Offset<SubmissionEntry>(nameof(SubmissionEntry.Address)));
        yield return ("sqe.len", Offset<SubmissionEntry>(nameof(SubmissionEntry.Length)));
        yield return ("sqe.flags", Offset<SubmissionEntry>(nameof(SubmissionEntry.OperationFlags)));
        yield return ("sqe.user_data", Offset<SubmissionEntry>(nameof(SubmissionEntry.UserData)));
        yield return ("cqe.size", Marshal.SizeOf<CompletionEntry>());
        yield return ("cqe.res", Offset<CompletionEntry>(nameof(CompletionEntry.Result)));
        yield return ("uring.params", Marshal.SizeOf<IoUringParameters>());
        yield return ("uring.sq_off", Offset<IoUringParameters>(nameof(IoUringParameters.Submission)));
        yield return ("uring.cq_off", Offset<IoUringParameters>(nameof(IoUringParameters.Completion)));
        yield return ("uring.sq_off.array", Offset<SubmissionOffsets>(nameof(SubmissionOffsets.Array)));
        yield return ("uring.cq_off.cqes", Offset<CompletionOffsets>(nameof(CompletionOffsets.Entry)));
        yield return ("uring.op.fsync", (long)IoUringOperation.Sync);
        yield return ("uring.op.cancel", (long)IoUringOperation.Cancel);
        yield return ("uring.op.fallocate", (long)IoUringOperation.Allocate);
        yield return ("uring.op.read", (long)IoUringOperation.Read);
        yield return ("uring.op.write", (long)IoUringOperation.Write);
        yield return ("uring.setup.cqsize", IoUringParameters.CompletionSize);
        yield return ("uring.setup.taskrun_flag", IoUringParameters.TaskRunFlag);
        yield return ("uring.sq.taskrun", IoUring.TaskRun);
        yield return ("uring.setup.single_issuer", IoUringParameters.SingleIssuer);
        yield return ("uring.setup.defer_taskrun", IoUringParameters.DeferTaskRun);
    }

    private static long Offset<T>(string field) => (long)Marshal.OffsetOf<T>(field);

    private static Dictionary<string, long> Build()
    {
        string program = Path.Combine(Path.GetTempPath(), $"abi-layout-{Environment.ProcessId}");
        try
        {
            Run("cc", "-Wall", "-Werror", "-o", program, Path.Combine(Repository.Root, "native/abi-layout.c"));
            return Run(program).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' '))
                .ToDictionary(parts => parts[0], parts => long.Parse(parts[1], CultureInfo.InvariantCulture));
        }
        finally
        {
            File.Delete(program);
        }
    }

    private static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException(
                $"{program}: {errors.Result} (apt-get install gcc libc6-dev libxen-dev)");
    }
}
