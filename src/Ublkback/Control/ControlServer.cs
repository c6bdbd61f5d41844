using System.Text.Json;
using Microsoft.Extensions.Logging;
using Ublkback.Hosting;
using Ublkback.Linux.Messages;
using Ublkback.Linux.Sockets;
using Ublkback.XenStore;

namespace Ublkback.Control;

/// <summary>
/// Answers requests on the control socket. Every message gets one reply, and no message ends the server. Any thread.
/// </summary>
internal sealed partial class ControlServer : IDisposable
{
    private readonly LineServer _server;

    /// <summary>Listens from now on.</summary>
    /// <param name="path">The path of the socket.</param>
    /// <param name="commands">The commands that it carries out.</param>
    /// <param name="services">The parts of the daemon that answer.</param>
    /// <param name="logger">Takes failures that are bugs.</param>
    public ControlServer(
        string path, IReadOnlyList<ControlCommand> commands, ControlServices services, ILogger logger) =>
        _server = new MessageDispatcher(
            ControlProtocol.Messages,
            commands.ToDictionary(
                command => command.Name,
                command => new Func<JsonElement, Task<byte[]>>(
                    request => AnswerAsync(command, request, services))),
            (command, failure) => Failed(logger, command, failure)).Listen(path);

    /// <inheritdoc/>
    public void Dispose() => _server.Dispose();

    private static async Task<byte[]> AnswerAsync(
        ControlCommand command, JsonElement request, ControlServices services)
    {
        try
        {
            return await command.AnswerAsync(request, services).ConfigureAwait(false);
        }
        catch (XenStoreException failure)
        {
            throw new CommandException(failure.Message, failure);
        }
    }

    [LoggerMessage(Level = LogLevel.Error, Message = "control socket: {Command} failed")]
    private static partial void Failed(ILogger logger, string command, Exception failure);
}
