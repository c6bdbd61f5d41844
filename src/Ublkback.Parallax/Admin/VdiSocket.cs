using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Requests;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// By which commands have the process that has a VDI open for writing do something to it. Any thread.
/// </summary>
internal static class VdiSocket
{
    /// <summary>Answers from now on, until the result is disposed.</summary>
    public static IDisposable Open(IVdiStore store, uint vdi, VdiImage image, Action<string> warn)
    {
        VdiRequestHandler tasks = new(store, image, warn);
        return store.Listen(vdi, async request =>
        {
            try
            {
                return await image.HoldAsync(() => tasks.RunAsync(request)).ConfigureAwait(false);
            }
            catch (TargetException failure)
            {
                return new VdiReply(failure.Message);
            }
            catch (OperationCanceledException)
            {
                return new VdiReply("the VDI is being closed: try again");
            }
        });
    }

    /// <summary>Asks who has a VDI open; null when nobody has.</summary>
    /// <exception cref="TargetException">It could not be done; the message says why.</exception>
    public static async Task<VdiReply?> TryAskAsync(IVdiStore store, uint vdi, VdiRequest request)
    {
        VdiReply? reply = await store.TryAskAsync(vdi, request).ConfigureAwait(false);
        return reply?.Error is null ? reply : throw new TargetException(reply.Error);
    }
}
