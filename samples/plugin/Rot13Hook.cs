using Ublkback.Block;

namespace Sample;

/// <summary>
/// <c>rot13</c>: keeps the letters of text rotated by 13 places. A hook that changes data on its way.
/// </summary>
internal sealed class Rot13Hook : BlockHook
{
    public Rot13Hook(HookTarget target) => target.AllowOnly();

    public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        // In a plugin the data is a private copy of the guest's, so it may be changed in place.
        if (request.Operation == BlockOperation.Write) Rotate(request.Data.Span);
        BlockStatus status = await next.HandleAsync(request);
        if (request.Operation == BlockOperation.Read) Rotate(request.Data.Span);
        return status;
    }

    private static void Rotate(Span<byte> data)
    {
        foreach (ref byte letter in data)
        {
            int place = (letter | 0x20) - 'a';
            if (place is >= 0 and < 26) letter = (byte)(letter - place + ((place + 13) % 26));
        }
    }
}
