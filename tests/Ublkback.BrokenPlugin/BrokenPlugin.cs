using Ublkback.Block;

namespace Ublkback.BrokenPlugin;

/// <summary>Hooks and images that do all that a plugin must not, each when it sees a write of sector 8.</summary>
public sealed class BrokenPlugin : IBlockPlugin
{
    public void Register(BlockCatalog catalog) => catalog
        .AddHook("throws", Make((_, _) => throw new InvalidOperationException("on purpose")))
        .AddHook("loses", Make((_, _) => new(new TaskCompletionSource<BlockStatus>().Task)))
        .AddHook("hasty", Make((request, next) =>
        {
            _ = next.HandleAsync(request);
            return new(BlockStatus.Okay);
        }))
        .AddHook("twice", Make(async (request, next) =>
        {
            _ = next.HandleAsync(request);
            return await next.HandleAsync(request);
        }))
        .AddHook("elsewhere", Make(async (request, next) =>
        {
            await Task.Yield();
            await Task.Delay(1).ConfigureAwait(false);
            return await Task.Run(async () => await next.HandleAsync(request).ConfigureAwait(false))
                .ConfigureAwait(false);
        }))
        .AddHook("posts", Make((request, next) =>
        {
            BlockLoop.Current.Post(() => throw new InvalidOperationException("posted on purpose"));
            return next.HandleAsync(request);
        }))
        .AddHook("strays", Make((request, next) =>
        {
            new Thread(() => throw new InvalidOperationException("on a thread of its own")).Start();
            return next.HandleAsync(request);
        }))
        .AddHook("nonsense", Make((_, _) => new((BlockStatus)77)))
        .AddHook("blocks", Make((_, _) =>
        {
            Thread.Sleep(Timeout.Infinite);
            return default;
        }))
        .AddHook("outside", Make((_, next) => next.HandleAsync(
            new BlockRequest
            {
                Operation = BlockOperation.Write,
                Sector = next.Geometry.SectorCount,
                SectorCount = 1,
                Data = new byte[512]
            })))
        .AddHook("cannot", (_, _) => throw new InvalidOperationException("no hook today"))
        .AddImage("lying", (_, _) => new LyingImage());

    private static HookOpener Make(Func<BlockRequest, HookSeam, ValueTask<BlockStatus>> whatItDoes) =>
        (_, _) => new BrokenHook(whatItDoes);

    private sealed class BrokenHook(Func<BlockRequest, HookSeam, ValueTask<BlockStatus>> whatItDoes) : BlockHook
    {
        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            request is { Operation: BlockOperation.Write, Sector: 8 }
                ? whatItDoes(request, next)
                : next.HandleAsync(request);
    }

    private sealed class LyingImage : IBlockImage
    {
        public ImageGeometry Geometry => new(2047, 4096, 4096, IsReadOnly: false);

        public string Identity => "lying";

        public ValueTask<BlockStatus> HandleAsync(BlockRequest request) => new(BlockStatus.Okay);

        public ValueTask DisposeAsync() => default;
    }
}
