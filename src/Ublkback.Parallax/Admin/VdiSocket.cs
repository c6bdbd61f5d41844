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
    /// Asks the process that holds a VDI to carry out a command and returns the reply; null if no process holds it.
    /// </summary>
    /// <exception cref="TargetException">It was not carried out; the message says why.</exception>
    public static async Task<TReply?> TryAskAsync<TRequest, TReply>(
        IVdiStore store, uint vdi, VdiHandler<TRequest, TReply> handler, TRequest request)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        byte[] message = JsonSerializer.SerializeToUtf8Bytes(request, handler.Requests);
        byte[]? reply = await store.TryAskAsync(vdi, message).ConfigureAwait(false);
        if (reply is null) return null;
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
