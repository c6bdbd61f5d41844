using System.Diagnostics;
using System.Net;
using System.Net.Security;
using Ublkback.Block;
using Ublkback.Linux.Sockets;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>Connects to a server, for the first time and again. On a worker.</summary>
/// <param name="address">Where it is.</param>
/// <param name="tls">How to speak TLS; null for in the clear.</param>
/// <param name="patience">How long it may take, and how long the server may take for an answer.</param>
/// <param name="warn">Takes sentences about errors.</param>
internal sealed class NbdConnector(
    NbdAddress address, SslClientAuthenticationOptions? tls, TimeSpan patience, Action<string> warn)
{
    /// <summary>How long the server may take for an answer.</summary>
    public TimeSpan Patience => patience;

    /// <summary>Where it is, for people.</summary>
    public string Name => address.Text;

    /// <summary>Connects and negotiates.</summary>
    /// <exception cref="IOException">It fails; the message says why.</exception>
    public async Task<NbdConnection> ConnectAsync()
    {
        IOException? failure = null;
        foreach (EndPoint place in await address.ResolveAsync())
        {
            try
            {
                return await ConnectAsync(place);
            }
            catch (IOException refusal)
            {
                failure = refusal;
            }
        }

        throw failure ?? new IOException($"{address.Host} has no address");
    }

    private async Task<NbdConnection> ConnectAsync(EndPoint place)
    {
        long begunAt = Stopwatch.GetTimestamp();
        SocketStream socket = await SocketStream.ConnectAsync(place);
        NbdChannel channel = new(socket);
        bool isDone = false, isLate = false;
        Worker.Current.Post(async () =>
        {
            await BlockLoop.Current.DelayAsync(patience);
            if (isDone) return;
            isLate = true;
            socket.Abort();
        });
        try
        {
            (channel, NbdExport export) = await NbdClientHandshake.RunAsync(channel, address.Export, tls);
            return new NbdConnection(channel, export, begunAt, text => warn($"{address.Text}: {text}"));
        }
        catch (IOException failure)
        {
            await channel.DisposeAsync();
            throw isLate
                ? new IOException($"the server has not answered for {patience.TotalSeconds} s", failure)
                : failure;
        }
        finally
        {
            isDone = true;
        }
    }
}
