using System.Text.Json;
using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Requests;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// How commands ask the process that holds a VDI open for writing, and how that process answers. Any thread.
/// </summary>
internal static class VdiSocket
{
    private const int MaxLosses = 2; // of a request that can be repeated

    /// <summary>Answers requests from now on, until the result is disposed.</summary>
    public static IDisposable Open(IVdiStore store, uint vdi, VdiImage image, Action<string> warn)
    {
        VdiHolder holder = new(store, image, warn, IsInUse: true);
        return store.Listen(vdi, new MessageDispatcher(
            VdiProtocol.Messages,
            VdiHandlers.All.ToDictionary(
                handler => handler.Command,
                handler => new Func<JsonElement, Task<byte[]>>(request => handler.AnswerAsync(request, holder))),
            (command, failure) => warn($"VDI socket: {command} failed: {failure}")));
    }

    /// <summary>
    /// Asks the process that holds a VDI to carry out a command and returns the reply; null if no process holds it. The
    /// request is sent again only if it is known that it was not carried out, or if that does no harm.
    /// </summary>
    /// <exception cref="TargetException">
    /// It was not carried out, or it is not known whether it was; the message says why.
    /// </exception>
    public static async Task<TReply?> TryAskAsync<TRequest, TReply>(
        IVdiStore store, uint vdi, VdiHandler<TRequest, TReply> handler, TRequest request)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        using VdiWait wait = new();
        return await TryAskAsync(store, vdi, handler, request, wait).ConfigureAwait(false);
    }

    /// <summary>The same, as a part of a longer wait.</summary>
    public static async Task<TReply?> TryAskAsync<TRequest, TReply>(
        IVdiStore store, uint vdi, VdiHandler<TRequest, TReply> handler, TRequest request, VdiWait wait)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        byte[] message = JsonSerializer.SerializeToUtf8Bytes(request, handler.Requests);
        for (int losses = 0; ;)
        {
            VdiDelivery delivery = await store.TryAskAsync(vdi, message).ConfigureAwait(false);
            if (delivery.Loss is string loss)
            {
                if (handler.Look is not null || losses++ == MaxLosses) throw Explain(handler, loss);
            }
            else
            {
                if (delivery.Reply is not byte[] reply) return null;
                if (!MessageProtocol.IsPostponed(reply) || wait.IsOver) return Read(handler, reply);
            }

            await wait.PauseAsync().ConfigureAwait(false);
        }
    }

    private static TargetException Explain(VdiHandler handler, string loss) => new(
        $"no complete reply came from the process that holds the VDI ({loss}), so it is not known whether "
        + $"'{handler.Command}' was carried out", handler.Look ?? "try again");

    private static TReply Read<TRequest, TReply>(VdiHandler<TRequest, TReply> handler, byte[] reply)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        try
        {
            return VdiProtocol.Messages.ReadReply(reply, handler.Command, handler.Replies);
        }
        catch (RefusedMessageException failure)
        {
            throw new TargetException(failure.Problem, failure.Remedy, failure);
        }
    }
}
