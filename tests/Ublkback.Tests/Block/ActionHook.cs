using Ublkback.Block;

namespace Ublkback.Tests.Block;

/// <summary>A hook that a test writes in a line.</summary>
internal sealed class ActionHook(Func<BlockRequest, HookSeam, ValueTask<BlockStatus>> action) : BlockHook
{
    public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) => action(request, next);
}
