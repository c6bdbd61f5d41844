using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Hooks;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Hooks;

/// <summary>Hooks over an image in memory, on a worker as in the daemon.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public abstract class HookFixture
{
    private Worker _worker = null!;

    protected List<string> Warnings { get; } = [];

    /// <summary>What the disk is kept in.</summary>
    protected byte[] Content { get; } = new byte[1 << 20];

    protected int ImageRequests { get; private set; }

    protected string Scratch { get; private set; } = null!;

    [SetUp]
    public void StartWorker()
    {
        _worker = new Worker("test");
        Scratch = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
    }

    [TearDown]
    public void StopWorker()
    {
        _worker.Dispose();
        Directory.Delete(Scratch, recursive: true);
    }

    /// <summary>Opens hooks, written as in a target.</summary>
    protected IBlockImage Open(string hooks) => new BlockCatalog()
        .AddImage("array", (_, _) => new ArrayImage(this))
        .AddStandardHooks()
        .Open(
            BlockTarget.Parse($"{hooks}+array:it"),
            new ImageOpening("the test", 0, false, true, null, Warnings.Add, 7, "xvda"));

    /// <summary>Runs code on the worker, where requests begin and end.</summary>
    protected Task<T> OnWorker<T>(Func<Task<T>> body) => _worker.InvokeAsync(body).WaitAsync(TimeSpan.FromSeconds(30));

    protected Task<BlockStatus> ReadAsync(IBlockImage image, ulong sector, byte[] buffer) =>
        OnWorker(async () => await image.HandleAsync(Request(BlockOperation.Read, sector, buffer)));

    protected Task<BlockStatus> WriteAsync(IBlockImage image, ulong sector, byte[] buffer) =>
        OnWorker(async () => await image.HandleAsync(Request(BlockOperation.Write, sector, buffer)));

    protected static BlockRequest Request(BlockOperation operation, ulong sector, byte[] buffer) => new()
    {
        Operation = operation,
        Sector = sector,
        SectorCount = buffer.Length / BlockRequest.SectorSize,
        Data = buffer,
    };

    private sealed class ArrayImage(HookFixture owner) : IBlockImage
    {
        public ImageGeometry Geometry => new((ulong)owner.Content.Length / 512, 512, 512, IsReadOnly: false, 512);

        public string Identity => "array";

        public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
        {
            owner.ImageRequests++;
            Span<byte> range = owner.Content.AsSpan((int)request.Sector * 512, (int)request.SectorCount * 512);
            if (request.Operation == BlockOperation.Read) range.CopyTo(request.Data.Span);
            else if (request.Operation == BlockOperation.Write) request.Data.Span.CopyTo(range);
            else if (request.Operation == BlockOperation.Discard) range.Clear();
            return new ValueTask<BlockStatus>(BlockStatus.Okay);
        }

        public ValueTask DisposeAsync() => default;
    }
}
