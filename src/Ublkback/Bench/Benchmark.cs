using System.Diagnostics;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Demo;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.Hosting;
using Ublkback.Linux.Workers;

namespace Ublkback.Bench;

/// <summary>
/// Measures the daemon on an emulated host: this process is the guest. Its disks are attached, kept busy for a while
/// that does not count, and then measured.
/// </summary>
internal sealed class Benchmark(BenchOptions options)
{
    private const int Domid = 1;
    private const int FirstDevice = 1 << 28; // extended numbers, 256 apart

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(1);

    private readonly List<string> _images = [];

    /// <exception cref="CommandException">It cannot be measured; the message says why.</exception>
    public async Task<BenchResult> RunAsync()
    {
        if (options.Queues < 1 || options.Vbds < 1) throw new CommandException("--queues and --vbds are 1 or more");
        int depth = options.Depth / options.Queues;
        int order = 0;
        while (BlkifConstants.SlotCount(order) < depth && order < BlkifConstants.MaxRingPageOrder) order++;
        if (depth < 1 || depth > BlkifConstants.SlotCount(order))
            throw new CommandException(
                $"--qd {options.Depth} is not from 1 to 512 for each of {options.Queues} queues");
        bool isTarget = !options.Image.StartsWith('/') && options.Image.Contains(':', StringComparison.Ordinal);
        if (isTarget && options.Vbds > 1)
            throw new CommandException($"--vbds {options.Vbds} wants an image that is a file");
        if (!isTarget && !File.Exists(options.Image))
            throw new CommandException(
                $"{options.Image} does not exist", $"create it with 'truncate --size=1G {options.Image}'");

        string directory = MakeDirectory();
        try
        {
            await using PrivateHost host = await PrivateHost.StartAsync(directory).ConfigureAwait(false);
            return await MeasureAsync(host, depth, order).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is ToolstackException or TimeoutException)
        {
            throw new CommandException($"the benchmark failed: {failure.Message}", failure);
        }
        finally
        {
            foreach (string image in _images.Where(image => image != options.Image)) File.Delete(image);
            Directory.Delete(directory, recursive: true);
        }
    }

    // In memory, where there is such a place: each event of the emulated host writes to a named pipe, and a file system
    // on a disk would keep a record of when.
    private static string MakeDirectory()
    {
        const string Memory = "/dev/shm";
        const string Prefix = "ublkback-bench-";
        const UnixFileMode OnlyTheUser = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        return Directory.Exists(Memory)
            ? Directory.CreateDirectory(Path.Combine(Memory, Prefix + Path.GetRandomFileName()), OnlyTheUser).FullName
            : Directory.CreateTempSubdirectory(Prefix).FullName;
    }

    private async Task<BenchResult> MeasureAsync(PrivateHost host, int depth, int order)
    {
        await host.Toolstack.CreateDomainAsync(Domid).ConfigureAwait(false);
        using EmulatedGuest guest = new(host.Environment.Emulated!, Domid);
        LoadPattern pattern = new(
            options.Rw.EndsWith("write", StringComparison.Ordinal),
            options.Rw.StartsWith("rand", StringComparison.Ordinal),
            options.BlockSize, depth);
        BlkfrontOptions frontend = new(
            BlkifAbi.X86_64, order, options.Queues, options.IsPersistent,
            Math.Max(BlkifConstants.MaxDirectSegments, options.BlockSize / BlkifConstants.PageSize));

        List<Worker> workers = [.. Enumerable.Range(
            0, Math.Min(Environment.ProcessorCount, options.Queues * options.Vbds))
            .Select(number => new Worker($"worker-{number}"))];
        List<(LoadQueue Queue, LoadFigures Figures)> loads = [];
        List<FrontendConnection> connections = [];
        MakeImages();
        for (int vbd = 0; vbd < options.Vbds; vbd++)
        {
            int device = FirstDevice + (vbd << 8);
            await host.Toolstack.AttachAsync(
                Domid, new DiskConfiguration(device, options.Hooks + _images[vbd], host.Script)).ConfigureAwait(false);
            FrontendConnection connection = await FrontendConnection.ConnectAsync(
                guest, host.Store, device, frontend, Patience).ConfigureAwait(false);
            connections.Add(connection);
            for (int queue = 0; queue < options.Queues; queue++)
            {
                LoadFigures figures = new(vbd);
                loads.Add((new LoadQueue(
                    workers[loads.Count % workers.Count], guest, connection, queue, pattern, figures.Record), figures));
            }
        }

        foreach ((LoadQueue queue, _) in loads) queue.Start();
        await Task.Delay(WarmUp).ConfigureAwait(false);
        Snapshot before = await Snapshot.TakeAsync(host).ConfigureAwait(false);
        foreach ((_, LoadFigures figures) in loads) figures.IsCounting = true;
        await Task.Delay(options.Time).ConfigureAwait(false);
        foreach ((_, LoadFigures figures) in loads) figures.IsCounting = false;
        Snapshot after = await Snapshot.TakeAsync(host).ConfigureAwait(false);
        foreach ((LoadQueue queue, _) in loads) await queue.StopAsync().WaitAsync(Patience).ConfigureAwait(false);
        int daemon = after.Daemon.Id;
        long resident = ProcessFigures.ResidentBytes(daemon);
        int threads = ProcessFigures.Threads(daemon);

        foreach (FrontendConnection connection in connections) connection.Dispose();
        foreach (Worker worker in workers) worker.Dispose();
        if (loads.Exists(load => load.Queue.HasFailed))
            throw new CommandException("requests failed: the figures would be wrong");
        return Sum([.. loads.Select(load => load.Figures)], before, after, resident, threads);
    }

    private static BenchResult Sum(List<LoadFigures> loads, Snapshot before, Snapshot after, long resident, int threads)
    {
        LatencyHistogram latency = new();
        foreach (LoadFigures load in loads) latency.Add(load.Latency);
        double requests = loads.Sum(load => load.Count);
        double seconds = Stopwatch.GetElapsedTime(before.At, after.At).TotalSeconds;
        return new BenchResult(
            requests / seconds,
            loads.Sum(load => load.TotalTicks) / requests * 1e6 / Stopwatch.Frequency,
            latency.QuantileMicroseconds(0.5), latency.QuantileMicroseconds(0.99), latency.QuantileMicroseconds(0.999),
            (after.CpuSeconds - before.CpuSeconds) * 1e6 / requests,
            (after.DaemonCpuSeconds - before.DaemonCpuSeconds) * 1e6 / requests,
            (after.Daemon.AllocatedBytes - before.Daemon.AllocatedBytes) / requests,
            after.Daemon.Collections - before.Daemon.Collections,
            loads.GroupBy(load => load.Vbd).Min(vbd => vbd.Sum(load => load.Count)) / seconds, resident, threads);
    }

    // One disk has the image itself. Several have images of their own beside it, together as large, and all written.
    private void MakeImages()
    {
        if (options.Vbds == 1)
        {
            _images.Add(options.Image);
            return;
        }

        long length = new FileInfo(options.Image).Length / options.Vbds / (1 << 20) * (1 << 20);
        if (length == 0)
            throw new CommandException(
                $"{options.Image} is too small for {options.Vbds} disks: 1 MiB each is the least");
        byte[] zeros = new byte[1 << 20];
        for (int vbd = 0; vbd < options.Vbds; vbd++)
        {
            string path = $"{options.Image}.{vbd}";
            _images.Add(path);
            using FileStream file = File.Create(path);
            for (long written = 0; written < length; written += zeros.Length) file.Write(zeros);
        }
    }

    /// <summary>What one queue's load has seen; written on its worker.</summary>
    private sealed class LoadFigures(int vbd)
    {
        public int Vbd => vbd;

        public volatile bool IsCounting;

        public LatencyHistogram Latency { get; } = new();

        public long Count { get; private set; }

        public long TotalTicks { get; private set; }

        public void Record(long ticks)
        {
            if (!IsCounting) return;
            Count++;
            TotalTicks += ticks;
            Latency.Record(ticks);
        }
    }

    /// <summary>The processes at one moment.</summary>
    private sealed record Snapshot(long At, double CpuSeconds, double DaemonCpuSeconds, ProcessReport Daemon)
    {
        public static async Task<Snapshot> TakeAsync(PrivateHost host)
        {
            DaemonReply reply = await ControlClient.AskAsync(host.Environment, ListCommand.Control, new ListRequest())
                .ConfigureAwait(false);
            int daemon = reply.Process.Id;
            return new Snapshot(
                Stopwatch.GetTimestamp(),
                host.Processes.Append(Environment.ProcessId).Sum(ProcessFigures.CpuSeconds),
                ProcessFigures.CpuSeconds(daemon), reply.Process);
        }
    }
}
