using System.CommandLine;
using Ublkback.Demo;
using Ublkback.Hosting;

namespace Ublkback.Commands;

/// <summary><c>ublkback demo-guest</c>, which the demonstration starts as its guest.</summary>
internal static class DemoGuestCommand
{
    public static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Option<int> domid = new("--domid") { Required = true };
        Option<int> device = new("--device") { Required = true };
        Option<double> seconds = new("--seconds") { DefaultValueFactory = _ => 3 };
        Command command = new("demo-guest", "The guest of the demonstration.") { host, domid, device, seconds };
        command.Hidden = true;
        command.SetAction((arguments, _) => DemoGuest.RunAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)).Emulated
                ?? throw new CommandException("the demonstration's guest needs an emulated host", "give --host DIR"),
            arguments.GetValue(domid), arguments.GetValue(device), TimeSpan.FromSeconds(arguments.GetValue(seconds))));
        return command;
    }
}
