using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Block;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class PipelineTests
{
    private readonly List<string> _log = [];
    private readonly List<string> _warnings = [];
    private readonly ScriptedImage _image = new();

    [Test]
    public async Task Requests_pass_downwards_and_answers_upwards()
    {
        BlockPipeline pipeline = Over(
            ("a", new ActionHook(async (request, next) => await LogAround("a", request, next))),
            ("b", new ActionHook(async (request, next) => await LogAround("b", request, next))));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.Okay));
        Assert.That(_log, Is.EqualTo(["a down", "b down", "b up", "a up"]));
        Assert.That(_image.Seen, Is.EqualTo(1));
    }

    [Test]
    public async Task A_hook_may_answer_itself()
    {
        BlockPipeline pipeline = Over(("a", new ActionHook((_, _) => new ValueTask<BlockStatus>(BlockStatus.NoSpace))));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.NoSpace));
        Assert.That(_image.Seen, Is.Zero);
    }

    [Test]
    public async Task A_changed_request_comes_back_as_it_was()
    {
        BlockRequest request = Read(0, 8);
        Memory<byte> data = request.Data;
        BlockPipeline pipeline = Over(("shift", new ActionHook(async (passed, next) =>
        {
            passed.Sector += 16;
            passed.SectorCount = 1;
            passed.Data = passed.Data[..512];
            return await next.HandleAsync(passed);
        })), ("b", new ActionHook((passed, next) => next.HandleAsync(passed))));
        await pipeline.HandleAsync(request);

        Assert.That(_image.LastSector, Is.EqualTo(16));
        Assert.That((request.Sector, request.SectorCount, request.Data.Equals(data)), Is.EqualTo((0UL, 8L, true)));
    }

    [TestCase(2048UL, 8L, 4096, "8 sectors at 2048 of 2048")]
    [TestCase(2047UL, 2L, 1024, "2 sectors at 2047 of 2048")]
    [TestCase(ulong.MaxValue, 8L, 4096, "8 sectors at 18446744073709551615")]
    [TestCase(0UL, -1L, 0, "-1 sectors")]
    [TestCase(0UL, 8L, 4095, "4095 bytes of data for 8 sectors")]
    public async Task A_bad_request_of_a_hook_goes_no_further_and_the_hook_is_named(
        ulong sector, long count, int bytes, string part)
    {
        BlockPipeline pipeline = Over(
            ("good", new ActionHook((request, next) => next.HandleAsync(request))),
            ("bad", new ActionHook((_, next) => next.HandleAsync(
                new BlockRequest
                {
                    Operation = BlockOperation.Read,
                    Sector = sector,
                    SectorCount = count,
                    Data = new byte[bytes]
                }))));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.IoError));
        Assert.That(_image.Seen, Is.Zero);
        Assert.That(
            _warnings, Has.Exactly(1).StartsWith("hook bad passed on a bad request: ").And.Exactly(1).Contains(part));
    }

    [Test]
    public async Task A_read_only_image_gets_no_writes()
    {
        _image.Shape = _image.Shape with { IsReadOnly = true };
        BlockPipeline pipeline = Over(("bad", new ActionHook((request, next) =>
        {
            request.Operation = BlockOperation.Write;
            return next.HandleAsync(request);
        })));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.IoError));
        Assert.That((_image.Seen, _warnings.Count), Is.EqualTo((0, 1)));
    }

    [Test]
    public async Task A_request_is_passed_on_once_at_a_time()
    {
        TaskCompletionSource gate = new();
        _image.Gate = gate.Task;
        BlockPipeline pipeline = Over(("twice", new ActionHook(async (request, next) =>
        {
            ValueTask<BlockStatus> first = next.HandleAsync(request);
            BlockStatus second = await next.HandleAsync(request);
            gate.SetResult();
            Assert.That(await first, Is.EqualTo(BlockStatus.Okay));
            Assert.That(await next.HandleAsync(request), Is.EqualTo(BlockStatus.Okay), "again, when it has ended");
            return second;
        })), ("b", new ActionHook((request, next) => next.HandleAsync(request))));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.IoError));
        Assert.That(_image.Seen, Is.EqualTo(2));
        Assert.That(_warnings, Is.EqualTo(["hook twice passed on a request that is below it already"]));
    }

    // Its data may still be read or written below.
    [Test]
    public async Task An_answer_waits_for_a_request_that_is_still_below([Values] bool isLate)
    {
        TaskCompletionSource gate = new();
        _image.Gate = gate.Task;
        BlockPipeline pipeline = Over(
            ("good", new ActionHook((request, next) => next.HandleAsync(request))),
            ("hasty", new ActionHook(async (request, next) =>
        {
            _ = next.HandleAsync(request);
            if (isLate) await Task.Yield();
            return BlockStatus.Okay;
        })));
        Task<BlockStatus> answer = pipeline.HandleAsync(Read(0, 8)).AsTask();
        while (_warnings.Count == 0) await Task.Yield();

        Assert.That(answer.IsCompleted, Is.False);
        gate.SetResult();
        Assert.That(await answer, Is.EqualTo(BlockStatus.IoError));
        Assert.That(_warnings, Is.EqualTo(["hook hasty answered a request that it passed on before that came back"]));
    }

    [Test]
    public void A_hook_that_cannot_measure_refuses_the_disk_and_later_keeps_the_old_size()
    {
        MeasuringHook hook = new();
        BlockPipeline pipeline = Over(("odd", hook));
        hook.Failure = new InvalidOperationException("oops");
        _image.Grow(4096);

        Assert.That((pipeline.Remeasure(), pipeline.Geometry.SectorCount), Is.EqualTo((false, 2048)));
        Assert.That(
            _warnings,
            Is.EqualTo(["hook odd does not take the new size: hook odd failed: InvalidOperationException: oops"]));
        Assert.That(
            () => Over(("odd", hook)),
            Throws.TypeOf<TargetException>().With.Message.EqualTo("hook odd failed: InvalidOperationException: oops"));
    }

    [Test]
    public async Task An_exception_fails_its_request_and_its_hook_is_named([Values] bool isLate)
    {
        BlockPipeline pipeline = Over(
            ("good", new ActionHook((request, next) => next.HandleAsync(request))),
            ("bad", new ActionHook((_, _) => isLate ? ThrowLater() : throw new InvalidOperationException("oops"))));

        Assert.That(await pipeline.HandleAsync(Read(0, 8)), Is.EqualTo(BlockStatus.IoError));
        Assert.That(_warnings, Is.EqualTo(["hook bad failed: InvalidOperationException: oops"]));
    }

    [Test]
    public void Hooks_shape_what_the_layers_above_see()
    {
        BlockPipeline pipeline = Over(("half", new HalvingHook()), ("half", new HalvingHook()));
        Assert.That(pipeline.Geometry.SectorCount, Is.EqualTo(512));

        _image.Grow(4096);
        Assert.That(pipeline.Remeasure(), Is.True);
        Assert.That(pipeline.Geometry.SectorCount, Is.EqualTo(1024));
        Assert.That(pipeline.Remeasure(), Is.False);
    }

    [Test]
    public void Events_reach_every_layer_even_past_a_broken_one()
    {
        List<string> seen = [];
        BlockPipeline pipeline = Over(
            ("bad", new EventHook(_ => throw new InvalidOperationException("oops"))),
            ("good", new EventHook(e => seen.Add($"hook {e}"))));
        _image.OnEvent = e => seen.Add($"image {e}");

        ((IBlockImage)pipeline).OnEvent(DiskEvent.Connected);

        Assert.That(seen, Is.EqualTo(["hook Connected", "image Connected"]));
        Assert.That(_warnings, Has.Exactly(1).StartsWith("hook bad failed when the disk was Connected"));
    }

    [Test]
    public void A_refused_hook_closes_what_was_opened_and_is_named()
    {
        DisposalHook first = new();
        BlockCatalog catalog = new BlockCatalog().AddImage("raw", (_, _) => _image)
            .AddHook("first", (_, _) => first).AddHook("second", (_, _) => throw new TargetException("no key given"));

        Assert.That(
            () => catalog.Open(BlockTarget.Parse("first+second+/a"), Opening()),
            Throws.TypeOf<TargetException>().With.Message.EqualTo("hook second: no key given"));
        Assert.That((first.IsDisposed, _image.IsDisposed), Is.EqualTo((true, true)));
    }

    [Test]
    public void Without_hooks_there_is_no_pipeline() => Assert.That(
        new BlockCatalog().AddImage("raw", (_, _) => _image).Open(BlockTarget.Parse("/a"), Opening()),
        Is.SameAs(_image));

    private static async ValueTask<BlockStatus> ThrowLater()
    {
        await Task.Yield();
        throw new InvalidOperationException("oops");
    }

    private static BlockRequest Read(ulong sector, int count) => new()
    {
        Operation = BlockOperation.Read,
        Sector = sector,
        SectorCount = count,
        Data = new byte[count * 512],
    };

    private ImageOpening Opening() => new("the test", 0, false, true, null, _warnings.Add);

    private BlockPipeline Over(params (string, BlockHook)[] hooks) => new(hooks, _image, _warnings.Add);

    private async ValueTask<BlockStatus> LogAround(string name, BlockRequest request, HookSeam next)
    {
        _log.Add($"{name} down");
        BlockStatus status = await next.HandleAsync(request);
        _log.Add($"{name} up");
        return status;
    }

    private sealed class HalvingHook : BlockHook
    {
        public override ImageGeometry Measure(ImageGeometry below) =>
            below with { SectorCount = below.SectorCount / 2 };

        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            next.HandleAsync(request);
    }

    private sealed class MeasuringHook : BlockHook
    {
        public Exception? Failure { get; set; }

        public override ImageGeometry Measure(ImageGeometry below) => Failure is null ? below : throw Failure;

        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            next.HandleAsync(request);
    }

    private sealed class EventHook(Action<DiskEvent> onEvent) : BlockHook
    {
        public override void OnEvent(DiskEvent happened) => onEvent(happened);

        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            next.HandleAsync(request);
    }

    private sealed class DisposalHook : BlockHook
    {
        public bool IsDisposed { get; private set; }

        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            next.HandleAsync(request);

        public override ValueTask DisposeAsync()
        {
            IsDisposed = true;
            return base.DisposeAsync();
        }
    }

    private sealed class ScriptedImage : IBlockImage, IMeasuredImage, IDiskObserver
    {
        public ImageGeometry Shape { get; set; } = new(2048, 512, 512, IsReadOnly: false);

        public Task Gate { get; set; } = Task.CompletedTask;

        public int Seen { get; private set; }

        public ulong LastSector { get; private set; }

        public bool IsDisposed { get; private set; }

        public Action<DiskEvent>? OnEvent { get; set; }

        public ImageGeometry Geometry => Shape;

        public string Identity => "scripted";

        private bool HasGrown { get; set; }

        public void Grow(ulong sectorCount)
        {
            Shape = Shape with { SectorCount = sectorCount };
            HasGrown = true;
        }

        public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
        {
            Seen++;
            LastSector = request.Sector;
            await Gate;
            return BlockStatus.Okay;
        }

        public bool Remeasure()
        {
            (bool hasGrown, HasGrown) = (HasGrown, false);
            return hasGrown;
        }

        void IDiskObserver.OnEvent(DiskEvent happened) => OnEvent?.Invoke(happened);

        public ValueTask DisposeAsync()
        {
            IsDisposed = true;
            return default;
        }
    }
}
